// The page: token, tabs, keys.
import { takeToken } from "./api.js";
import { byId } from "./dom.js";
import { enterOperator, leaveOperator, startOperator } from "./operator.js";
import { enterReport } from "./report.js";
import { startWatch } from "./watch.js";

const TABS = ["watch", "operator", "report"];
const enter = { operator: enterOperator, report: enterReport };
const leave = { operator: leaveOperator };
const scrolled = {};
let current = "watch";

function open(name) {
  if (name === current) return;
  leave[current]?.();
  scrolled[current] = scrollY;
  current = name;
  byId("notice").hidden = true;
  byId("toast").classList.remove("shown");
  for (const one of TABS) {
    const tab = byId(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    byId(one).hidden = one !== name;
  }
  history.replaceState(null, "", name === "watch" ? location.pathname + location.search : `#${name}`);
  scrollTo(0, scrolled[name] ?? 0);
  enter[name]?.();
}

function moveAmongTabs(event) {
  const place = TABS.indexOf(current);
  const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: TABS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  open(TABS.at(to % TABS.length));
  byId(`tab-${current}`).focus();
}

function focusSearch(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || byId("person").hidden) return;
  event.preventDefault();
  open("watch");
  byId("query").focus();
}

function followAddress() {
  takeToken();
  const name = location.hash.slice(1);
  if (TABS.includes(name)) open(name);
}

for (const name of TABS) byId(`tab-${name}`).addEventListener("click", () => open(name));
document.querySelector(".tabs").addEventListener("keydown", moveAmongTabs);
document.addEventListener("keydown", focusSearch);
addEventListener("hashchange", followAddress);
takeToken();
startWatch();
startOperator();
followAddress();
