// Small charts in SVG, drawn at the width of their container.
import { element, shape } from "./dom.js";

const HEIGHT = 150;
const MARGIN = { left: 44, right: 8, top: 8, bottom: 20 };
const ROW = 26;
const SHORT = 620;

/** Gives a chart of lines over time, `series`: [{name, values}], `times` in seconds; the pointer reads a moment. */
export function lines({ label, series, times, format, width, area = false }) {
  const most = niceCeiling(Math.max(...series.flatMap((one) => one.values), 0));
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const [first, last] = [times[0], times.at(-1)];
  const x = (time) => MARGIN.left + (last > first ? (time - first) / (last - first) : 1) * inner.width;
  const y = (value) => MARGIN.top + (1 - value / most) * inner.height;
  const drawing = canvas(width, HEIGHT, spoken(label, series, format));
  for (const share of [0, 0.5, 1]) {
    const height = y(share * most);
    drawing.append(shape("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: height, y2: height }),
      shape("text", { x: MARGIN.left - 6, y: height + 4, "text-anchor": "end" }, share ? format(share * most) : "0"));
  }
  drawing.append(shape("text", { x: MARGIN.left, y: HEIGHT - 4 }, `${Math.round((last - first) / 60)} min ago`),
    shape("text", { x: width - MARGIN.right, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
  series.forEach(({ values }, place) => {
    const points = values.map((value, moment) => `${x(times[moment]).toFixed(1)},${y(value).toFixed(1)}`);
    const closed = [`${x(first)},${y(0)}`, ...points, `${x(last)},${y(0)}`].join(" ");
    if (area) drawing.append(shape("polygon", { class: "area", points: closed }));
    drawing.append(shape("polyline", { class: `line-${place}`, points: points.join(" ") }));
  });
  const legend = element("p", { className: "legend" });
  const read = (moment) => legend.replaceChildren(...series.map(({ name, values }, place) =>
    entry(name, format(values[moment]), `mark-${place}`)));
  read(times.length - 1);
  readable(drawing, { times, x, read, width });
  return [legend, drawing];
}

/** Gives rows of bars. `rows`: [{name, values, text}], each value a bar from zero, drawn the largest first. */
export function bars({ label, rows, marks, width, logarithmic = false }) {
  const scale = logarithmic ? (value) => Math.log10(1 + value) : (value) => value;
  const most = scale(Math.max(...rows.flatMap((row) => row.values), 0)) || 1;
  const [start, room] = [Math.min(150, width * 0.45), 96];
  const length = (value) => Math.max(1, (scale(value) / most) * (width - start - room));
  const height = rows.length * ROW;
  const said = `${label}: ${rows.map((row) => `${row.name} ${row.text}`).join("; ")}`;
  const drawing = canvas(width, height, said);
  rows.forEach(({ name, values, text }, place) => {
    const middle = place * ROW + ROW / 2;
    drawing.append(shape("text", { class: "name", x: 0, y: middle + 4 }, name));
    const order = values.map((value, mark) => [value, mark]).sort(([one], [other]) => other - one);
    for (const [value, mark] of order) {
      const common = { class: marks[mark], x: start, width: length(value), rx: 3 };
      drawing.append(shape("rect", { ...common, y: middle - 7, height: 14 }));
    }
    drawing.append(shape("text", { class: "value", x: width, y: middle + 4, "text-anchor": "end" }, text));
  });
  return drawing;
}

/** Gives a legend's entry: a mark, a name, and a value if there is one. */
export const entry = (name, value, mark) =>
  element("span", {},
    shape("svg", { viewBox: "0 0 9 9", "aria-hidden": "true" }, shape("rect", { class: mark, width: 9, height: 9 })),
    value === null ? name : `${name} ${value}`);

const canvas = (width, height, label) =>
  shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });

const spoken = (label, series, format) =>
  `${label}, the last ten minutes; now ${series.map((one) => `${one.name} ${format(one.values.at(-1))}`).join(", ")}`;

function readable(drawing, { times, x, read, width }) {
  const cursor = shape("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
  drawing.append(cursor);
  drawing.addEventListener("pointermove", (event) => {
    const at = (event.offsetX / drawing.clientWidth) * width;
    const away = (place) => Math.abs(x(times[place]) - at);
    const moment = times.reduce((best, _, place) => (away(place) < away(best) ? place : best), 0);
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(times[moment]));
    cursor.setAttribute("visibility", "visible");
    read(moment);
  });
  drawing.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    read(times.length - 1);
  });
}

function niceCeiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** Gives the width at which a chart in this container is drawn. */
export const widthOf = (container) => Math.max(260, Math.floor(container.clientWidth) || SHORT);
