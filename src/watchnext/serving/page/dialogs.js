// The small dialog that asks for a token or a confirmation.
import { byId } from "./dom.js";

let asking = null;

/** Asks for the token of write and admin routes; requests that fail together share one dialog. Null: cancelled. */
export function askToken(refused) {
  asking ??= ask({
    title: "Token",
    text: refused
      ? "The server refused this token. Enter another."
      : "Changes and the operator's view need the server's token. It is kept until this browser tab closes.",
    verb: "Use token",
    secret: true,
  }).finally(() => (asking = null));
  return asking;
}

/** Asks for a confirmation and says whether it was given. */
export const confirmed = async (title, text, verb) => (await ask({ title, text, verb })) !== null;

function ask({ title, text, verb, secret = false }) {
  const [dialog, input, yes] = ["question", "question-input", "question-yes"].map(byId);
  byId("question-title").textContent = title;
  byId("question-text").textContent = text;
  yes.textContent = verb;
  input.hidden = !secret;
  input.required = secret;
  input.value = "";
  dialog.returnValue = ""; // not every browser forgets the last one on Escape
  dialog.showModal();
  (secret ? input : yes).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? input.value.trim() : null);
      input.value = "";
    }, { once: true });
  });
}
