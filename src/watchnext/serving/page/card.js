// One place of a list, and why it is there.
import { bar, button, element, text } from "./dom.js";
import { age, clock, percent, signedSeconds, titleOf, words } from "./format.js";
import { picture } from "./picture.js";

const SOURCES = {
  network: "Like what you watch", co_watch: "Watched together", popular: "Popular",
  trending: "Trending now", fresh: "Fresh uploads", channels: "From your channels",
};

export const sourceName = (source) => SOURCES[source] ?? words(source);

/** Gives the line below a title: channel, topic, age. */
export function metaOf(video, asOf) {
  const uploaded = video.uploaded_at === null || video.uploaded_at === undefined ? null : age(asOf - video.uploaded_at);
  const topic = video.category ? words(String(video.category)) : null;
  const channel = /^\d+$/.test(video.channel ?? "") ? `Channel ${video.channel}` : video.channel;
  return [channel, topic, uploaded].filter(Boolean).join(" · ") || "channel unknown";
}

/** Gives the card of a place. `actions`: watch, why, block; `change`: null, "new" or the places it moved up; `longest`:
 * the most seconds expected of a place of the list, or null where nothing is predicted and explained. */
export function card(place, { asOf, longest, change, actions }) {
  const title = titleOf(place);
  const className = change === "new" ? "card changed" : "card";
  const made = element("article", { className, "data-video": place.video_id });
  const open = button("", () => actions.watch(place), { className: "open", "aria-label": `Watch ${title}` });
  open.append(picture(place), ...badges(place, change));
  const why = button("Why", () => actions.why(place, made),
    { className: "quiet why-button", "aria-expanded": "false", "aria-label": `Why ${title}` });
  const block = button("Block", () => actions.block(place), { className: "quiet", "aria-label": `Block ${title}` });
  const parts = [
    open,
    text("h3", "card-title", title, { title }),
    text("p", "meta", metaOf(place, asOf)),
    longest === null ? null : expected(place.expected_watch_seconds, longest),
    element("div", { className: "card-actions" }, longest === null ? null : why, block),
  ];
  made.append(...parts.filter(Boolean));
  return made;
}

function badges(place, change) {
  const made = [];
  if (place.duration_seconds) made.push(text("span", "badge length-badge", clock(place.duration_seconds)));
  if (change === "new") made.push(text("span", "badge change-badge", "New"));
  else if (change) made.push(text("span", "badge change-badge", `↑ ${change}`, { title: `${change} places up` }));
  return made;
}

function expected(seconds, longest) {
  if (seconds === null || seconds === undefined) return text("p", "expected", "watch time not predicted");
  const number = text("span", "", `${clock(seconds)} expected`);
  return element("p", { className: "expected", title: "Expected watch time" }, bar(seconds / (longest || 1)), number);
}

/** Gives a place that only waits for its video. */
export const skeleton = () =>
  element("div", { className: "card skeleton", "aria-hidden": "true" },
    ["picture", "line", "line short"].map((className) => text("span", className, "")));

/** Gives a small tile that only waits. */
export const skeletonTile = (tag) => element(tag, { className: "tile skeleton" }, text("span", "picture", ""));

/** Gives the panel that says why a video is in the list. */
export function whyPanel(place, close) {
  const why = place.why ?? { sources: place.sources, watches: [], features: [] };
  const chips = why.sources.map((source) => text("li", "chip", sourceName(source)));
  const largest = Math.max(...why.features.map((feature) => Math.abs(feature.seconds)), 0);
  const features = why.features.map((feature) => contribution(feature, largest));
  const watches = why.watches.map((watch) =>
    element("li", {}, text("span", "pull-title", titleOf(watch)), bar(watch.pull),
      text("span", "number", percent(watch.pull))));
  return element("div", { className: "why-panel", role: "region", "aria-label": `Why ${titleOf(place)}`, tabIndex: -1 },
    button("×", close, { className: "quiet round close", "aria-label": "Close" }),
    element("p", { className: "why-title" }, "Why ", text("strong", "", titleOf(place))),
    column("Nominated by", element("ul", { className: "chips" }, chips)),
    column("Pulled in by", listOr(watches, "No single watch stands out.")),
    column("What adds to the expected time", listOr(features, "Not broken down.")));
}

const column = (title, content) => element("div", { className: "why-column" }, text("h4", "", title), content);
const listOr = (items, nothing) =>
  items.length ? element("ul", { className: "shares" }, items) : text("p", "fine", nothing);

function contribution({ name, seconds }, largest) {
  const sign = seconds < 0 ? "less" : "more";
  return element("li", {}, text("span", "pull-title", words(name)),
    bar(Math.abs(seconds) / (largest || 1), sign), text("span", `number ${sign}`, signedSeconds(seconds)));
}
