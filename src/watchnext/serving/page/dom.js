// Elements from data. Text goes in as text: no function here parses markup.

export const byId = (id) => document.getElementById(id);

/** Gives a new element: `on…` are listeners, known names properties, the rest attributes; null is left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Gives an element of one class that holds text. */
export const text = (tag, className, textContent, more = {}) => element(tag, { className, textContent, ...more });

/** Gives a button that does not submit. */
export const button = (label, onclick, properties = {}) =>
  element("button", { type: "button", textContent: label, onclick, ...properties });

/** Gives a new SVG element. */
export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.flat());
  return made;
}

/** Gives a horizontal bar that is filled by `share` of its width. */
export function bar(share, className = "") {
  const fill = element("span", { className: "fill" });
  fill.style.setProperty("width", `${Math.round(1000 * Math.min(1, Math.max(0, share))) / 10}%`);
  return element("span", { className: `bar ${className}`, "aria-hidden": "true" }, fill);
}

/** Says whether the person asked for little movement. */
export const prefersStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
