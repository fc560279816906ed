// The HTTP API. Addresses are relative, so the page also works below a prefix.
import { askToken } from "./dialogs.js";

const TOKEN = "watchnext-token";
const REMEDIES = {
  401: "Enter a token that the server knows.",
  403: "This token may not do that. Enter another.",
  404: "Check what was asked for, pick another user, or start as nobody.",
  409: "What served before goes on. Choose another bundle.",
  413: "Ask for less at once.",
  422: "Change what was entered.",
  429: "Too many requests came from here. Wait a moment, then try again.",
  503: "The server is busy or still starting. Wait a moment, then try again.",
};

/** A request that failed: what happened, and what to do. */
export class ApiError extends Error {
  constructor(message, remedy, status = 0) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

/** Takes the token out of the address, once, so that it is neither shared nor kept in the browser's history. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given === null) return;
  sessionStorage.setItem(TOKEN, given);
  history.replaceState(null, "", location.pathname + location.search);
}

/** Gives the answer to a request, as JSON or as text; a 401 asks for a token and tries again, unless `quiet`. */
export async function request(method, path, { query = {}, body, quiet = false, text = false } = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, values] of Object.entries(query)) {
    for (const value of [values ?? []].flat()) url.searchParams.append(name, value);
  }
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const answer = await send(url, method, body, token);
    if (answer.status !== 401 || quiet) return read(answer, text);
    const another = sessionStorage.getItem(TOKEN);
    if (another !== token) continue; // entered meanwhile, for another request
    const entered = await askToken(token !== null);
    if (!entered) return read(answer, text);
    sessionStorage.setItem(TOKEN, entered);
  }
}

async function send(url, method, body, token) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(url, { method, headers, body: JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new ApiError("The server does not answer.", "Check that `watchnext serve` runs, then try again.");
  }
}

async function read(answer, text) {
  if (answer.status === 204) return null;
  if (answer.ok) return text ? answer.text() : answer.json();
  const said = await answer.json().catch(() => ({}));
  const message = detail(said.detail) || `The server answered ${answer.status}.`;
  const remedy = REMEDIES[answer.status] ?? (answer.status >= 500 ? "The server's log says why. Try again." : "");
  throw new ApiError(message, remedy, answer.status);
}

function detail(said) {
  if (!Array.isArray(said)) return said ?? "";
  return said.map((one) => `${(one.loc ?? []).join(".")}: ${one.msg}`).join("; ");
}

/** Gives a random identifier (UUID 4), also where the page was not loaded over a secure connection. */
export const newId = () =>
  "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) =>
    (digit ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (digit / 4)))).toString(16));
