// The operator's view: traffic, latency, funnel, recall, calibration, versions; promote and roll back.
import { request } from "./api.js";
import { bars, entry, lines, widthOf } from "./chart.js";
import { confirmed } from "./dialogs.js";
import { sourceName } from "./card.js";
import { byId, element, text } from "./dom.js";
import { count, milliseconds, percent, span, words } from "./format.js";
import { attempt, toast } from "./notice.js";

const POLL_MILLISECONDS = 2500;
const LARGEST_RECALL_LOSS = 0.02;
const LARGEST_DRIFT = 0.1;
const QUANTILES = ["p50", "p95", "p99"];

let visits = 0;
let former = null;

/** Makes the forms ready. */
export function startOperator() {
  byId("promote").addEventListener("submit", (event) => { event.preventDefault(); promote(event.target); });
  byId("rollback").addEventListener("click", rollback);
}

/** Shows the status, again and again until `leaveOperator`, or until it fails. */
export function enterOperator() {
  visits += 1;
  poll(visits);
}

/** Stops asking for the status. */
export function leaveOperator() {
  visits += 1;
}

async function poll(visit) {
  if (visit !== visits) return;
  const shown = document.hidden || await attempt(async () => {
    const status = await request("GET", "admin/status");
    if (visit === visits) show(status);
    return true;
  }, { clears: false });
  if (shown) setTimeout(() => poll(visit), POLL_MILLISECONDS);
}

function show(status) {
  byId("freshness").textContent = `up for ${span(status.uptime_seconds)} · read at ${new Date().toLocaleTimeString()}`;
  byId("tiles").replaceChildren(...tilesOf(status));
  const quantiles = [["p50", "p50"], ["p99", "p99"]];
  const [traffic, latency, stages, funnel, sources] =
    ["Traffic", "Latency", "Latency by stage", "Funnel", "Sources"].map(panelNamed);
  traffic.replaceChildren(...history(status, traffic, "Traffic", [["requests per second", "per_second"]], count, true));
  latency.replaceChildren(...history(status, latency, "Latency", quantiles, milliseconds, false));
  stages.replaceChildren(...stagesOf(status, stages));
  funnel.replaceChildren(funnelOf(status, funnel));
  sources.replaceChildren(...sourcesOf(status, sources));
  showVersions(status);
}

function panelNamed(title) {
  const id = `panel-${title.replaceAll(" ", "-").toLowerCase()}`;
  if (!byId(id)) {
    const content = element("div", { id });
    const panel = element("section", { className: "panel", "aria-label": title }, text("h2", "", title), content);
    byId("panels").append(panel);
  }
  return byId(id);
}

function tilesOf({ requests, latency_ms, variants, calibration, events }) {
  const probe = variants.map((one) => one.recall_probe).find(Boolean) ?? null;
  const total = latency_ms.total ?? {};
  const degraded = requests.total ? requests.degraded / requests.total : 0;
  return [
    tile("Requests per second", count(requests.per_second), `${count(requests.total)} in all`),
    tile("p50", inMilliseconds(total.p50), "half are faster"),
    tile("p99", inMilliseconds(total.p99), "one in a hundred is slower"),
    tile("Degraded", percent(degraded, 1), `${count(requests.degraded)} answers`),
    tile("Failed", count(requests.failed), `${count(requests.refused)} refused early`, requests.failed > 0),
    probe ? recallTile(probe)
      : tile("Recall", "–", "not probed yet"),
    calibration ? calibrationTile(calibration)
      : tile("Watched / expected", "–", "no watches yet"),
    tile("Events", count(events.accepted), `${count(events.duplicates)} duplicates`),
  ];
}

const recallTile = ({ recall, tuned_recall: tuned }) =>
  tile("Recall", percent(recall, 1), `${percent(tuned ?? recall, 1)} when tuned`, recall < tuned - LARGEST_RECALL_LOSS);

const calibrationTile = ({ ratio, watches }) =>
  tile("Watched / expected", ratio.toFixed(2), `${count(watches)} watches`, Math.abs(ratio - 1) > LARGEST_DRIFT);

const tile = (name, value, more, bad = false) =>
  element("dl", { className: "figure" }, text("dt", "", name),
    element("dd", { textContent: value, className: bad ? "value bad" : "value" }), text("dd", "fine", more));

const inMilliseconds = (number) => (number === undefined || number === null ? "–" : milliseconds(number));

function history({ history: moments }, container, label, columns, format, area) {
  if (moments.length < 2) return [text("p", "fine", "Nothing to draw yet: a point comes every few seconds.")];
  const series = columns.map(([name, key]) => ({ name, values: moments.map((one) => one[key] ?? 0) }));
  return lines({ label, series, times: moments.map((one) => one.at), format, width: widthOf(container), area });
}

function stagesOf({ latency_ms }, container) {
  const rows = Object.entries(latency_ms).map(([stage, quantiles]) => {
    const values = QUANTILES.map((name) => quantiles[name] ?? 0);
    return { name: words(stage), values, text: values.map((value) => value.toFixed(value < 10 ? 1 : 0)).join(" · ") };
  });
  const marks = QUANTILES.map((name) => `mark-${name}`);
  const entries = QUANTILES.map((name, place) => entry(name, null, marks[place]));
  const chart = bars({ label: "Milliseconds at p50, p95 and p99", rows, marks, width: widthOf(container) });
  return [element("p", { className: "legend" }, entries, "ms"), chart];
}

function funnelOf({ funnel }, container) {
  const rows = funnel.map(({ stage, videos }) => 
    ({ name: words(stage), values: [videos], text: `${count(videos)} videos` }));
  return bars({ label: "Funnel", rows, marks: ["mark-0"], width: widthOf(container), logarithmic: true });
}

function sourcesOf({ sources }, container) {
  const rows = sources.map(({ source, nominated, shown }) =>
    ({ name: sourceName(source), values: [nominated, shown], text: `${count(nominated)} · ${count(shown)}` }));
  const marks = ["mark-p99", "mark-0"];
  const entries = ["nominated", "shown"].map((name, place) => entry(name, null, marks[place]));
  const chart = bars({ label: "Nominated and shown", rows, marks, width: widthOf(container), logarithmic: true });
  return [element("p", { className: "legend" }, entries, "logarithmic"), chart];
}

function showVersions({ variants, previous }) {
  const head = ["Variant", "Share", "Bundle", "Folder", "Log ends", "Videos", "Users", "Index", "Changes", "Built"];
  const rows = variants.map((one) => element("tr", {}, [
    one.variant, percent(one.share), one.bundle, one.path, new Date(1000 * one.log_end).toISOString().slice(0, 10),
    one.num_videos.toLocaleString("en"), one.num_users.toLocaleString("en"), one.index.engine, count(one.index.changes),
    `${span(one.index.age_seconds)} ago`,
  ].map((text, place) => element("td", { textContent: text, className: place === 2 || place === 3 ? "code" : "" }))));
  const titles = head.map((text) => element("th", { textContent: text, scope: "col" }));
  byId("versions").replaceChildren(element("thead", {}, element("tr", {}, titles)), element("tbody", {}, rows));
  byId("rollback").disabled = !previous;
  former = previous;
  byId("previous").textContent = previous ? `Before this: ${nameOf(previous)}.` : "Nothing to roll back to.";
}

const nameOf = ({ bundle, path }) => `${bundle} in ${path}`;

async function promote(form) {
  const { path, share, variant } = Object.fromEntries(new FormData(form));
  const body = { path, ...(share && { share: Number(share) }), ...(variant && { variant }) };
  const whom = share ? `${percent(Number(share))} of the users` : "all users";
  const text = `${path} will be loaded, checked, and then serve ${whom}. Requests under way finish on theirs.`;
  if (await confirmed("Promote this bundle?", text, "Promote")) await change("admin/bundle", body);
}

async function rollback() {
  const text = `${nameOf(former)} will serve again. Requests under way finish on the present bundle.`;
  if (await confirmed("Roll back?", text, "Roll back")) await change("admin/rollback");
}

async function change(path, body) {
  const answer = await attempt(() => request("POST", path, { body }));
  if (!answer) return;
  toast(`${answer.bundle} serves now.`);
  byId("promote").reset();
  enterOperator();
}
