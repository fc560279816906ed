// The last evaluation report, in a frame that runs no scripts.
import { request } from "./api.js";
import { byId } from "./dom.js";
import { attempt } from "./notice.js";

const STYLE = /<style[^>]*>([\s\S]*?)<\/style>/gi;

/** Fetches the report, which needs the token and so cannot be the frame's address, and shows it. */
export async function enterReport() {
  const html = await attempt(find);
  const [frame, word] = [byId("report-frame"), byId("report-word")];
  frame.hidden = !html;
  word.hidden = Boolean(html);
  if (html) return fill(frame, html);
  word.textContent = html === null
    ? "There is no evaluation report yet. `watchnext evaluate` writes one; it is shown here."
    : "The report could not be read.";
  return undefined;
}

async function find() {
  try {
    return await request("GET", "admin/report", { text: true });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** A frame inherits the page's policy, which allows no inline style: its style sheets are adopted instead. */
function fill(frame, html) {
  const styles = [...html.matchAll(STYLE)].map((found) => found[1]);
  frame.addEventListener("load", () => {
    const { contentDocument, contentWindow } = frame;
    const sheet = new contentWindow.CSSStyleSheet();
    sheet.replaceSync(`:root { color-scheme: light dark; } ${styles.join("\n")}`);
    contentDocument.adoptedStyleSheets = [sheet];
  }, { once: true });
  frame.srcdoc = html.replace(STYLE, "");
}
