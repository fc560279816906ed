// Choosing how much of a video was watched.
import { request } from "./api.js";
import { metaOf, skeletonTile } from "./card.js";
import { button, byId, text } from "./dom.js";
import { clock, percent, titleOf } from "./format.js";
import { picture } from "./picture.js";

const COMPLETED_SHARE = 0.9;
const UNKNOWN_LENGTH_SECONDS = 60;
const NUM_SIMILAR = 8;

/** Opens the player. Gives {video, watchSeconds, completed}, or null where it was closed without a watch. */
export function play(video, asOf) {
  const dialog = byId("player");
  const range = byId("watched");
  let playing = video;
  const show = (next) => {
    playing = next;
    byId("player-picture").replaceChildren(picture(next));
    byId("player-title").textContent = titleOf(next);
    byId("player-meta").textContent = metaOf(next, asOf);
    range.value = 100;
    describe();
    showSimilar(next, show);
  };
  const describe = () => {
    const share = range.value / 100;
    const length = lengthOf(playing);
    const said = `${clock(share * length)} of ${clock(length)} · ${share === 1 ? "to the end" : percent(share)}`;
    byId("watched-output").textContent = said;
    range.setAttribute("aria-valuetext", said);
  };
  range.oninput = describe;
  dialog.returnValue = ""; // not every browser forgets the last one on Escape
  dialog.showModal();
  show(video);
  byId("player-watch").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const share = range.value / 100;
      const watched = { video: playing, watchSeconds: share * lengthOf(playing), completed: share >= COMPLETED_SHARE };
      resolve(dialog.returnValue === "watch" ? watched : null);
    }, { once: true });
  });
}

const lengthOf = (video) => video.duration_seconds || UNKNOWN_LENGTH_SECONDS;

async function showSimilar(video, show) {
  const row = byId("similar-row");
  const waiting = Array.from({ length: 4 }, () => skeletonTile("span"));
  row.replaceChildren(...waiting);
  const path = `v1/videos/${encodeURIComponent(video.video_id)}/similar`;
  const answer = await request("GET", path, { query: { k: NUM_SIMILAR }, quiet: true }).catch(() => ({ videos: [] }));
  if (!row.contains(waiting[0])) return; // another video is shown by now
  const tiles = answer.videos.map((one) => {
    const tile = button("", () => { show(one); byId("player-watch").focus(); }, { className: "tile" });
    tile.append(picture(one), text("span", "tile-title", titleOf(one)));
    return tile;
  });
  row.replaceChildren(...(tiles.length ? tiles : [text("p", "fine", "None are known.")]));
}
