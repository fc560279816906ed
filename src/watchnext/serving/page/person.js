// Who watches: a user of the log, whose events the server keeps, or nobody, whose events stay in this page.
import { newId, request } from "./api.js";

const HISTORY_LIMIT = 50;

/** A user of the log. */
export class KnownUser {
  constructor(id) {
    this.id = String(id);
    this.name = `User ${id}`;
  }

  list(k, filters) {
    return request("GET", "v1/recommendations", { query: { user_id: this.id, k, explain: true, ...filters } });
  }

  /** Gives the events, newest first, or null where they need a token that is not there; `ask` asks for it. */
  async past(ask = false) {
    try {
      const answer = await request("GET", `${this.#path()}/history`, { query: { limit: HISTORY_LIMIT }, quiet: !ask });
      return answer.events.filter((event) => event.kind !== "impression");
    } catch (error) {
      if (error.status === 401) return null;
      throw error;
    }
  }

  /** Gives the event of a watch; `send` may be tried again with it, and it counts once. */
  watch(video, watchSeconds, completed, answer, position) {
    const watched = { video_id: video.video_id, watch_seconds: watchSeconds, completed };
    const shown = position > 0 ? { clicked: true, position, page_id: answer.request_id } : {};
    return this.#event("watch", { ...watched, ...shown });
  }

  search(query) {
    return this.#event("search", { query });
  }

  send(event) {
    return request("POST", "v1/events", { body: { events: [event] } });
  }

  block(video, blocked) {
    const path = `v1/videos/${encodeURIComponent(video.video_id)}/block`;
    return request(blocked ? "POST" : "DELETE", path, { body: { user_id: this.id } });
  }

  async forget() {
    return (await request("DELETE", this.#path())).forgotten_events;
  }

  hides() {
    return false;
  }

  #event(kind, more) {
    return { event_id: newId(), kind, user_id: this.id, ...more };
  }

  #path() {
    return `v1/users/${encodeURIComponent(this.id)}`;
  }
}

/** Nobody in particular: what happened is kept here, goes along with each request, and is gone with the page. */
export class Nobody {
  id = null;
  name = "Nobody in particular";
  #events = [];
  #hidden = new Set();

  list(k, { categories, max_duration_seconds }) {
    const history = this.#kept("watch", ({ video_id, timestamp, watch_seconds, completed }) =>
      ({ video_id, timestamp, watch_seconds, completed }));
    const searches = this.#kept("search", ({ query, timestamp }) => ({ query, timestamp }));
    const filters = {};
    if (categories) filters.categories = [categories];
    if (max_duration_seconds) filters.max_duration_seconds = Number(max_duration_seconds);
    return request("POST", "v1/recommendations", { body: { history, searches, k, explain: true, filters } });
  }

  async past() {
    return this.#events.toReversed();
  }

  watch(video, watchSeconds, completed, answer) {
    const { video_id, title, channel, category, duration_seconds } = video;
    const about = { video_id, title, channel, category, duration_seconds };
    return { kind: "watch", ...about, watch_seconds: watchSeconds, completed, timestamp: momentOf(answer) };
  }

  search(query, answer) {
    return { kind: "search", query, timestamp: momentOf(answer) };
  }

  async send(event) {
    this.#events.push(event);
  }

  async block(video, blocked) {
    this.#hidden[blocked ? "add" : "delete"](video.video_id);
  }

  async forget() {
    const forgotten = this.#events.length;
    this.#events = [];
    this.#hidden.clear();
    return forgotten;
  }

  hides(video) {
    return this.#hidden.has(video.video_id);
  }

  #kept(kind, shape) {
    return this.#events.filter((event) => event.kind === kind).map(shape);
  }
}

/** The server's own idea of now: a list may be made as of the end of a log that is years old. */
export const momentOf = (answer) =>
  answer ? Math.floor(answer.as_of + (performance.now() - answer.received_at) / 1000) : undefined;
