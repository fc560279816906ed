// A list cut into shelves, their cards, and how a person moves among them.
import { card, skeleton, sourceName, whyPanel } from "./card.js";
import { element, prefersStillness, text } from "./dom.js";
import { words } from "./format.js";

const FIRST = 12;
const FEWEST = 4;
const SHELF_SOURCES = ["fresh", "trending", "channels", "co_watch", "popular"];
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Gives the shelves of a list, each video on one: the best first, then by source, then by topic, then the rest. */
export function arranged(places) {
  const shelves = [{ title: "For you", places: places.slice(0, FIRST), grid: true }];
  let left = places.slice(FIRST);
  const keys = SHELF_SOURCES.map((source) => [sourceName(source), (place) => place.sources.includes(source)]);
  for (const topic of topicsOf(left)) keys.push([words(String(topic)), (place) => place.category === topic]);
  for (const [title, belongs] of keys) {
    const taken = left.filter(belongs);
    if (taken.length < FEWEST) continue;
    shelves.push({ title, places: taken, grid: false });
    left = left.filter((place) => !belongs(place));
  }
  if (left.length) shelves.push({ title: "More for you", places: left, grid: true });
  return shelves.filter((shelf) => shelf.places.length);
}

/** Gives the topics of videos, the most frequent first. */
export function topicsOf(places) {
  const counts = new Map();
  for (const { category } of places) if (category) counts.set(category, (counts.get(category) ?? 0) + 1);
  return [...counts.keys()].sort((one, other) => counts.get(other) - counts.get(one));
}

/** Says of each video whether it is new ("new"), how many places it moved up, or null. */
export function changes(before, places) {
  const found = new Map();
  if (before === null) return found;
  const ranks = new Map(before.map((place, rank) => [place.video_id, rank]));
  places.forEach((place, rank) => {
    const former = ranks.get(place.video_id);
    if (former === undefined) found.set(place.video_id, "new");
    else if (former > rank) found.set(place.video_id, former - rank);
  });
  return found;
}

/** Shows shelves in the container; videos that were there before glide to their new places. */
export function showShelves(container, shelves, describe, actions) {
  const before = rectangles(container);
  const focused = cardsOf(container).findIndex((one) => one.contains(document.activeElement));
  const withWhy = { ...actions, why: toggleWhy };
  container.replaceChildren(...shelves.map(({ title, places, grid }) => {
    const cards = places.map((place) => card(place, { ...describe(place), actions: withWhy }));
    cards.forEach((one, place) => setReachable(one, place === 0));
    return element("section", { className: "shelf", "aria-label": title }, text("h2", "", title),
      element("div", { className: grid ? "grid" : "row" }, cards));
  }));
  glide(container, before);
  if (focused >= 0) focusCard(cardsOf(container)[focused] ?? cardsOf(container)[0]);
}

/** Shows places that wait for their videos. */
export function showSkeletons(container) {
  const cards = Array.from({ length: FIRST }, skeleton);
  container.replaceChildren(element("section", { className: "shelf" }, text("h2", "", "For you"),
    element("div", { className: "grid" }, cards)));
}

/** Moves the focus by arrow keys, Home and End, to the nearest card in that direction. */
export function moveAmongCards(event) {
  const here = event.target.closest?.(".card");
  if (!here || event.ctrlKey || event.altKey || event.metaKey) return;
  const cards = cardsOf(event.currentTarget);
  let next = null;
  if (event.key === "Home") next = cards[0];
  else if (event.key === "End") next = cards.at(-1);
  else if (STEPS[event.key]) next = nearest(here, cards, STEPS[event.key]);
  else return;
  event.preventDefault();
  if (next) focusCard(next);
}

const cardsOf = (container) => [...container.querySelectorAll(".card[data-video]")];

function focusCard(next) {
  if (!next) return;
  for (const one of cardsOf(next.parentElement)) setReachable(one, one === next);
  next.querySelector(".open").focus();
}

function setReachable(one, reachable) {
  for (const part of one.querySelectorAll("button")) part.tabIndex = reachable ? 0 : -1;
}

function nearest(here, cards, [across, down]) {
  const from = here.getBoundingClientRect();
  const distance = (one) => {
    const to = one.getBoundingClientRect();
    const [x, y] = [to.left - from.left, to.top - from.top];
    if (across) return Math.abs(y) < from.height / 2 && x * across > 1 ? Math.abs(x) : Infinity;
    return y * down > from.height / 2 ? Math.abs(y) * 10 + Math.abs(x) : Infinity;
  };
  const best = cards.reduce((one, other) => (distance(other) < distance(one) ? other : one));
  return distance(best) < Infinity ? best : null;
}

function toggleWhy(place, owner) {
  const shelf = owner.closest(".shelf");
  const toggle = owner.querySelector(".why-button");
  const wasOpen = toggle.getAttribute("aria-expanded") === "true";
  shelf.querySelector(".why-panel")?.dispatchEvent(new Event("leave"));
  if (wasOpen) return;
  const close = () => {
    panel.remove();
    owner.classList.remove("explained");
    toggle.setAttribute("aria-expanded", "false");
  };
  const closeAndReturn = () => { close(); toggle.focus(); };
  const panel = whyPanel(place, closeAndReturn);
  panel.addEventListener("leave", close);
  for (const part of [panel, owner]) {
    part.addEventListener("keydown", (event) => { if (event.key === "Escape" && panel.isConnected) closeAndReturn(); });
  }
  (owner.parentElement.classList.contains("grid") ? owner : owner.parentElement).after(panel);
  owner.classList.add("explained");
  toggle.setAttribute("aria-expanded", "true");
  panel.scrollIntoView({ block: "nearest", behavior: prefersStillness() ? "auto" : "smooth" });
}

const rectangles = (container) =>
  new Map(cardsOf(container).map((one) => [one.dataset.video, one.getBoundingClientRect()]));

function glide(container, before) {
  if (prefersStillness()) return;
  for (const one of cardsOf(container)) {
    const [from, to] = [before.get(one.dataset.video), one.getBoundingClientRect()];
    if (before.size === 0 || (from && from.top === to.top && from.left === to.left)) continue;
    const moved = from && `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
    const start = moved ? { transform: moved } : { opacity: 0, transform: "scale(.94)" };
    one.animate([start, { opacity: 1, transform: "none" }], { duration: 450, easing: "cubic-bezier(.2, .8, .2, 1)" });
  }
}
