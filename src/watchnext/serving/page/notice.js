// What went wrong, with the remedy, above the content; what was done, briefly, below it.
import { button, byId, element, text } from "./dom.js";

const TOAST_MILLISECONDS = 6000;
let leaving = 0;

/** Gives the action's result, or shows its error with a way to try again and gives undefined. What a person does takes
 * the last error away; what happens by itself should not. */
export async function attempt(action, { clears = true } = {}) {
  const notice = byId("notice");
  if (clears) notice.hidden = true;
  try {
    return await action();
  } catch (error) {
    if (error.remedy === undefined) throw error;
    notice.replaceChildren(
      element("p", {}, text("strong", "", error.message), ` ${error.remedy}`),
      button("Try again", () => attempt(action)),
      button("Dismiss", () => (notice.hidden = true), { className: "quiet" }),
    );
    notice.hidden = false;
    notice.scrollIntoView({ block: "nearest" });
    return undefined;
  }
}

/** Says what was done; with an `undo`, offers it. */
export function toast(said, undo = null) {
  const place = byId("toast");
  place.replaceChildren(text("span", "", said));
  if (undo) place.append(button("Undo", () => { place.classList.remove("shown"); undo(); }));
  place.classList.add("shown");
  clearTimeout(leaving);
  leaving = setTimeout(() => place.classList.remove("shown"), TOAST_MILLISECONDS);
}
