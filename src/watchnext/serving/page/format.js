// Numbers as people read them.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const AGES = Object.entries({ year: 31_557_600, month: 2_629_800, week: 604_800, day: 86_400, hour: 3600, minute: 60 });

export const count = (number) => (Math.abs(number) < 100_000 ? COUNT : COMPACT).format(number);
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const milliseconds = (number) => `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;

/** Gives 3:05 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) parts.unshift(Math.floor(whole / 3600));
  return parts.map((part, place) => (place ? String(part).padStart(2, "0") : String(part))).join(":");
}

/** Gives "3 days", the largest whole unit that fits. */
export function span(seconds) {
  for (const [name, size] of AGES) {
    const number = Math.floor(seconds / size);
    if (number >= 1) return `${number} ${name}${number === 1 ? "" : "s"}`;
  }
  return "moments";
}

export const age = (seconds) => (seconds < 60 ? "just now" : `${span(seconds)} ago`);

/** Gives seconds with their sign: "+4.2 s". */
export const signedSeconds = (seconds) => `${seconds < 0 ? "−" : "+"}${Math.abs(seconds).toFixed(1)} s`;

export const titleOf = (video) => video.title || `Video ${video.video_id}`;

/** Gives a name fit to be read: "co_watch" as "Co watch", a topic that is a bare number as "Topic 7". */
export function words(name) {
  if (/^\d+$/.test(name)) return `Topic ${name}`;
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
