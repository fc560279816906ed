// Pictures made from the videos themselves: the category gives the colours, the channel the motif, the id the rest.
import { element, shape } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 180;
const HUE_SPREAD = 26;
const MOTIFS = [hills, discs, rays, arches, mosaic, strata];

/** Gives the picture of a video, the same at every call. */
export function picture(video, className = "") {
  const id = String(video.video_id);
  const random = generator(hash(`id ${id}`));
  const topic = `category ${video.category ?? video.channel ?? id}`;
  const motif = MOTIFS[hash(`channel ${video.channel ?? id}`) % MOTIFS.length];
  const frame = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "xMidYMid slice" };
  const letters = { x: 18, y: 160, "font-size": 40, "font-weight": 700, fill: "#fff", "fill-opacity": 0.94 };
  const drawing = shape("svg", frame, motif(random), shape("text", letters, initialsOf(video.title)));
  const made = element("span", { className: `picture ${className}`, "aria-hidden": "true" }, drawing);
  const [hueShift, angle] = [HUE_SPREAD * (random() - 0.5), 100 + Math.floor(70 * random())];
  made.style.setProperty("background", gradientOf(topic, hueShift, angle));
  return made;
}

/** Gives the colours of a name: equally light for every name, so that white can be read on their dark end. */
export function gradientOf(name, hueShift = 0, angle = 135) {
  const hue = Math.round(((hash(name) % 3600) / 10 + hueShift + 360) % 360);
  return `linear-gradient(${angle}deg, oklch(.36 .1 ${hue}), oklch(.68 .13 ${(hue + 42) % 360}))`;
}

function hash(text) {
  let value = 0x811c9dc5;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 0x01000193);
  return (value ^ (value >>> 15)) >>> 0;
}

function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function initialsOf(title) {
  const starts = (title ?? "").split(/\s+/).map((word) => word.match(/[\p{L}\p{N}]/u)?.[0]).filter(Boolean);
  return starts.slice(0, 2).join("").toUpperCase();
}

const light = (opacity) => ({ fill: "#fff", "fill-opacity": opacity.toFixed(2) });
const shade = (opacity) => ({ fill: "#000", "fill-opacity": opacity.toFixed(2) });
const disc = (cx, cy, r, paint) => shape("circle", { cx, cy, r, ...paint });

function hills(random) {
  const sun = disc(60 + 200 * random(), 45 + 40 * random(), 16 + 20 * random(), light(0.4));
  const layers = [0, 1, 2].map((layer) => {
    const base = 95 + 28 * layer;
    const [first, second] = [70 * random() - 45, 70 * random() - 35];
    const path = `M0 ${base}C90 ${base + first} 150 ${base + second} ${WIDTH} ${base - 20 * random()}V${HEIGHT}H0z`;
    return shape("path", { d: path, ...shade(0.14 + 0.08 * layer) });
  });
  return [sun, ...layers];
}

function discs(random) {
  const tone = (place) => (place % 2 ? light(0.08 + 0.14 * random()) : shade(0.14));
  return Array.from({ length: 6 }, (_, place) =>
    disc(WIDTH * random(), HEIGHT * random(), 24 + 66 * random(), tone(place)));
}

function rays(random) {
  const [x, y] = [WIDTH * (0.2 + 0.6 * random()), HEIGHT * (1 + 0.1 * random())];
  const fans = Array.from({ length: 9 }, (_, place) => {
    const corners = [0.05, 0.2].map((width) => Math.PI * (1 + (place + width * 2 + 0.1 * random()) / 9));
    const points = corners.map((angle) => `${x + 420 * Math.cos(angle)},${y + 420 * Math.sin(angle)}`);
    return shape("polygon", { points: `${x},${y} ${points.join(" ")}`, ...light(0.1 + 0.1 * random()) });
  });
  return [...fans, disc(x, y, 46 + 20 * random(), light(0.32))];
}

function arches(random) {
  const x = WIDTH * (0.35 + 0.5 * random());
  return [150, 118, 86, 54].map((r, ring) => disc(x, HEIGHT, r, ring % 2 ? shade(0.16) : light(0.1 + 0.08 * random())));
}

function mosaic(random) {
  const size = 40;
  const tiles = [];
  for (let x = 0; x < WIDTH; x += size) {
    for (let y = 0; y < HEIGHT; y += size) {
      const tone = random();
      const paint = tone > 0.7 ? light(0.3 * tone - 0.1) : shade(0.12);
      if (tone > 0.4) tiles.push(shape("rect", { x, y, width: size, height: size, ...paint }));
    }
  }
  return tiles;
}

function strata(random) {
  const lean = 60 + 120 * random();
  return Array.from({ length: 6 }, (_, place) => {
    const [x, width] = [place * 75 - 130 + 25 * random(), 18 + 30 * random()];
    const points = `${x},${HEIGHT} ${x + width},${HEIGHT} ${x + width + lean},0 ${x + lean},0`;
    return shape("polygon", { points, ...(place % 2 ? light(0.1 + 0.12 * random()) : shade(0.16)) });
  });
}
