// Moments of a limit: the windows of its rates, and its cool-down, with what is left of each.

import { bar, taskOf, whyAddress } from "./cells.js";
import { element, keepRows, shown, write } from "./dom.js";
import { count, left, now, period, time } from "./format.js";
import { visible } from "./names.js";
import { t } from "./texts.js";

const ticking = new Set();

setInterval(() => {
  for (const node of ticking) {
    if (node.isConnected) node.tick();
    else ticking.delete(node);
  }
}, 1_000);

/** Return an element that counts down to a moment; its `show` takes that. */
function countdown() {
  const node = element("time");
  let until = 0;
  node.tick = () => write(node, t("opens_in", { left: left(until) }));
  node.show = (moment) => {
    until = moment;
    node.setAttribute("datetime", new Date(until * 1000).toISOString());
    node.setAttribute("title", time(until));
    ticking.add(node);
    node.tick();
  };
  return node;
}

/** Return whether a cool-down's time is over: it stays after a refusal, until the run that goes first has succeeded. */
const isOver = ({ refused = false, until }) => refused && until <= now();

/** Return the cool-down of a limit, as in an answer of /usage, that can be made longer; null if there is none. */
export const resting = ({ cooldown = null }) => (cooldown && !isOver(cooldown) ? cooldown : null);

/** Return a list of a limit's moments; its `show` takes the limit as in an answer of /usage. */
export function momentsList() {
  const list = element("ul", { class: "moments" });
  list.show = ({ rates = [], cooldown = null }) => {
    const windows = rates.map((rate) => ({ ...rate, key: `${rate.max}/${rate.per}` }));
    const all = cooldown ? [{ ...cooldown, key: "cooldown" }, ...windows] : windows;
    keepRows(list, all, (one) => one.key, ({ key }) => (key === "cooldown" ? cooldownItem() : windowItem()));
    shown(list, all.length > 0);
  };
  return list;
}

function windowItem() {
  const used = bar("window");
  const text = element("span");
  const opens = countdown();
  const item = element("li", {}, used, text, opens);
  item.show = ({ max, per, used: some, opens_at: moment = null }) => {
    used.show(some / max, moment === null ? "room" : "full");
    write(text, t("window", { used: count(some), max: count(max), period: period(per) }));
    shown(opens, moment !== null);
    if (moment !== null) opens.show(moment);
  };
  return item;
}

function cooldownItem() {
  const opens = countdown();
  const badge = element("span", { class: "badge", "data-state": "cooling" });
  const first = element("span");
  const probe = element("a");
  const why = element("span", { class: "why" });
  const item = element("li", {}, badge, opens, first, probe, why);
  item.show = (cooldown) => {
    const { until, reason, by, refused = false, probe: token = null } = cooldown;
    const over = isOver(cooldown);
    write(badge, t(over ? "tried" : "cooling"));
    shown(opens, !over);
    if (!over) opens.show(until);
    write(first, t(token ? "tried_by" : "one_first"));
    shown(first, refused);
    shown(probe, token !== null);
    if (token) {
      probe.href = whyAddress(taskOf(token));
      write(probe, visible(taskOf(token)));
    }
    write(why, [reason && visible(reason), by && t("set_by", { name: by })].filter(Boolean).join(t("comma")));
  };
  return item;
}
