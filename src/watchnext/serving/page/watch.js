// The first view: who watches, what they saw, and what they should watch next.
import { request } from "./api.js";
import { bar, button, byId, element, text } from "./dom.js";
import { confirmed } from "./dialogs.js";
import { age, clock, count, milliseconds, titleOf, words } from "./format.js";
import { attempt, toast } from "./notice.js";
import { KnownUser, momentOf, Nobody } from "./person.js";
import { gradientOf, picture } from "./picture.js";
import { play } from "./player.js";
import { skeletonTile, sourceName } from "./card.js";
import { arranged, changes, moveAmongCards, showShelves, showSkeletons, topicsOf } from "./shelves.js";

const K = 48;
const NUM_SUGGESTED = 12;
const NUM_FOUND = 24;
const NUM_TOPICS = 8;
const WELCOME_VIDEOS = [46, 2, 42, 51, 7];

let person = null;
let answer = null;
let topics = [];
let topic = null;
let question = 0;
const known = new Map();

const actions = { watch, block };

/** Makes the view ready and asks for users to pick from. */
export function startWatch() {
  onSubmit("pick", () => begin(new KnownUser(byId("user").value.trim())));
  byId("nobody").addEventListener("click", () => begin(new Nobody()));
  byId("change").addEventListener("click", leave);
  byId("forget").addEventListener("click", forget);
  onSubmit("search", () => attempt(search));
  byId("query").addEventListener("keydown", (event) => { if (event.key === "Escape") closeFound(); });
  byId("length").addEventListener("change", () => reload(null));
  for (const place of ["found", "shelves"]) byId(place).addEventListener("keydown", moveAmongCards);
  byId("welcome-art").append(...WELCOME_VIDEOS.map((video_id) => picture({ video_id })));
  suggest();
}

async function suggest() {
  const query = { limit: NUM_SUGGESTED };
  const found = await request("GET", "v1/users", { query, quiet: true }).catch((error) => error);
  const chip = (label, action) => button(label, action, { className: "chip" });
  const place = byId("suggestions");
  if (found.users) place.replaceChildren(...found.users.map((id) => chip(id, () => begin(new KnownUser(id)))));
  else if (found.status === 401) place.replaceChildren(chip("Show users of the log", unlock));
}

async function unlock() {
  if (await attempt(() => request("GET", "v1/users", { query: { limit: 1 } }))) suggest();
}

function begin(next) {
  person = next;
  answer = topic = null;
  topics = [];
  byId("welcome").hidden = true;
  byId("person").hidden = false;
  byId("name").textContent = person.name;
  byId("avatar").style.setProperty("background", gradientOf(person.name));
  byId("avatar").textContent = person.id === null ? "?" : person.id.slice(0, 2);
  byId("length").value = "";
  byId("topics").replaceChildren();
  closeFound();
  byId("past").replaceChildren(...Array.from({ length: 6 }, () => skeletonTile("li")));
  reload(null);
  byId("name").focus({ preventScroll: true });
}

function leave() {
  question += 1; // an answer that is under way is nobody's any more
  person = null;
  byId("person").hidden = true;
  byId("welcome").hidden = false;
  byId("notice").hidden = true;
  byId("user").focus();
}

const onSubmit = (form, action) =>
  byId(form).addEventListener("submit", (event) => { event.preventDefault(); action(); });

/** Asks for the list and the history again; what differs from the list `before` is marked. */
function reload(before) {
  question += 1;
  const asked = question;
  const filters = { categories: topic, max_duration_seconds: byId("length").value || null };
  if (before === null) showSkeletons(byId("shelves"));
  byId("person").setAttribute("aria-busy", "true");
  return attempt(async () => {
    const started = performance.now();
    try {
      const [list, past] = await Promise.all([person.list(K, filters), person.past()]);
      if (asked !== question) return null;
      answer = { ...list, received_at: performance.now(), took: performance.now() - started };
      answer.recommendations = list.recommendations.filter((place) => !person.hides(place));
      if (topic === null) topics = topicsOf(answer.recommendations).slice(0, NUM_TOPICS);
      showPast(past);
      return show(changes(before, answer.recommendations));
    } catch (error) {
      if (asked !== question) return null;
      if (answer === null) for (const place of ["shelves", "past"]) byId(place).replaceChildren();
      throw error;
    } finally {
      byId("person").removeAttribute("aria-busy");
    }
  });
}

function show(changed) {
  const places = answer.recommendations;
  const longest = Math.max(...places.map((place) => place.expected_watch_seconds ?? 0));
  const describe = (place) => ({ asOf: answer.as_of, longest, change: changed.get(place.video_id) ?? null });
  for (const place of places) known.set(String(place.video_id), place);
  showShelves(byId("shelves"), arranged(places), describe, actions);
  showTopics();
  const degraded = answer.degraded.map(words).join(", ");
  const notes = [answer.note && `${words(answer.note)}.`, degraded && `Shortened to answer in time: ${degraded}.`];
  byId("note").textContent = notes.filter(Boolean).join(" ");
  const used = [...new Set(places.flatMap((place) => place.sources))].map(sourceName);
  byId("answered").textContent = `${places.length} videos (${used.join(", ")}) in ${milliseconds(answer.took)}`
    + ` · variant ${answer.variant} · bundle ${answer.bundle}`;
  return [...changed.values()];
}

function showTopics() {
  const choose = (chosen) => { topic = chosen; reload(null); };
  const chip = (label, chosen) =>
    button(label, () => choose(chosen), { className: "chip", "aria-pressed": String(chosen === topic) });
  byId("topics").replaceChildren(chip("All", null), ...topics.map((one) => chip(words(String(one)), one)));
}

function showPast(events) {
  const place = byId("past");
  const ask = () => attempt(async () => showPast(await person.past(true)));
  if (events === null) place.replaceChildren(element("li", { className: "empty" }, button("Show the history", ask)));
  else if (events.length) place.replaceChildren(...events.map(pastTile));
  else place.replaceChildren(text("li", "empty", "Nothing yet. Pick a video below, and say how much was watched."));
}

function pastTile(event) {
  const when = event.timestamp && answer ? age(momentOf(answer) - event.timestamp) : "";
  if (event.kind === "search") {
    return element("li", { className: "tile searched" }, text("span", "searched-query", `“${event.query ?? ""}”`),
      text("span", "meta", `searched ${when}`));
  }
  const video = { ...known.get(String(event.video_id)), ...event };
  const share = event.completed ? 1 : (event.watch_seconds ?? 0) / video.duration_seconds;
  const thumb = picture(video);
  if (Number.isFinite(share)) thumb.append(bar(share));
  const seen = event.watch_seconds ? `${clock(event.watch_seconds)}${event.completed ? " ✓" : ""}` : "shown";
  const title = titleOf(event);
  return element("li", { className: "tile" }, thumb, text("span", "tile-title", title, { title }),
    text("span", "meta", [seen, when].filter(Boolean).join(" · ")));
}

async function watch(place) {
  const watched = await play(place, answer.as_of);
  if (!watched) return;
  const position = answer.recommendations.findIndex((one) => one.video_id === watched.video.video_id) + 1;
  const event = person.watch(watched.video, watched.watchSeconds, watched.completed, answer, position);
  const before = answer.recommendations;
  await attempt(async () => {
    await person.send(event);
    told(`Watched ${titleOf(watched.video)}`, await reload(before));
  });
}

function told(what, changed, undo = null) {
  if (!changed) return;
  const fresh = changed.filter((one) => one === "new").length;
  const [moved, same] = [changed.length - fresh, changed.length === 0];
  toast(`${what}: ${same ? "the list stays" : `${count(fresh)} new, ${count(moved)} moved up`}.`, undo);
}

async function search() {
  const query = byId("query").value.trim();
  const event = person.search(query, answer);
  const before = answer?.recommendations ?? null;
  const found = await request("GET", "v1/videos", { query: { query, limit: NUM_FOUND } });
  showShelves(byId("found"), [{ title: `Results for “${query}”`, places: found.videos, grid: false }],
    () => ({ asOf: answer?.as_of, longest: null, change: null }), actions);
  if (!found.videos.length) byId("found").append(text("p", "empty", "No title has these words."));
  const close = button("×", closeFound, { className: "quiet round", "aria-label": "Close the results" });
  byId("found").querySelector("h2").append(close);
  await person.send(event);
  told(`Searched “${query}”`, await reload(before));
}

function closeFound() {
  byId("found").replaceChildren();
  byId("query").value = "";
}

async function block(place) {
  const before = answer.recommendations;
  const unblock = () => attempt(async () => {
    await person.block(place, false);
    await reload(answer.recommendations);
  });
  await attempt(async () => {
    await person.block(place, true);
    byId("found").querySelector(`[data-video="${CSS.escape(place.video_id)}"]`)?.remove();
    told(`Blocked ${titleOf(place)}`, await reload(before), unblock);
  });
}

async function forget() {
  const text = person.id === null
    ? "What happened in this page is dropped."
    : "Every event of this user is erased from the server and left out of later training. This cannot be taken back.";
  if (!(await confirmed("Forget me?", text, "Forget"))) return;
  const forgotten = await attempt(() => person.forget());
  if (forgotten === undefined) return;
  toast(`${count(forgotten)} event${forgotten === 1 ? "" : "s"} forgotten.`);
  leave();
}
