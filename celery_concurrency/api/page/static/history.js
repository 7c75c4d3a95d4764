// The versions of the configuration: when, who, what changed, and going back.

import { desk, rollBack } from "./actions.js";
import { differences, linesOf, shortLinesOf } from "./changes.js";
import { changing, element, shown, write } from "./dom.js";
import { count, timeElement } from "./format.js";
import { visible } from "./names.js";
import { t } from "./texts.js";

/** Return a row of the history; its `show` takes a version. */
export function historyRow() {
  let version = null;
  const number = element("span");
  const badge = element("span", { class: "badge", "data-state": "room" }, t("in_force"));
  const when = timeElement();
  const who = element("td");
  const what = element("td");
  const back = changing(t("roll_back"), () => rollBack(version.version, changesTo(version.config)), true);
  const row = element("tr", {}, element("th", { scope: "row" }, number, " ", badge),
    element("td", {}, when), who, what, element("td", { class: "buttons", "data-change": "" }, back));
  row.show = (one) => {
    if (version === null) what.append(changesOf(one));
    version = one;
    write(number, String(one.version));
    when.show(one.at);
    write(who, whoText(one));
    shown(badge, one.inForce);
    shown(back, !one.isLast && !one.problem);
    back.setAttribute("aria-label", `${t("roll_back")}: ${one.version}`);
  };
  return row;
}

/** How a change came whose author is not known. */
const WAYS = new Map([
  ["api", t("way_api")], ["cli", t("way_cli")], ["library", t("way_library")],
  ["reset", t("way_reset")], ["rollback", t("way_rollback")],
]);

/** Return who made a change or did something, as the history shows it. */
export function whoText({ operator, source }) {
  if (operator) return `${visible(operator)} (${source})`;
  return WAYS.has(source) ? t("who_unknown", { way: WAYS.get(source) }) : source;
}

/** Return a row that says who did something to a token or a waiting task. */
export function actionRow() {
  const when = timeElement();
  const who = element("td");
  const what = element("td");
  const row = element("tr", {}, element("td", {}, when), who, what);
  row.show = (one) => {
    when.show(one.at);
    write(who, whoText(one));
    write(what, t(one.action === "released" ? "action_released" : "action_cancelled", { subject: visible(one.subject), count: count(one.count) }));
  };
  return row;
}

function changesOf({ problem, changed, changed_total: total }) {
  const changes = (changed ?? []).flatMap(({ before, after, field }) => differences(before, after, field));
  const lines = [
    ...(problem ? [t("not_valid", { problem })] : []),
    ...(changed === null ? [t("not_known")] : shortLinesOf(changes, total - changed.length + changes.length)),
  ];
  if (!lines.length) lines.push(t("nothing_changed"));
  return element("ul", { class: "changes" }, ...lines.map((line) => element("li", {}, line)));
}

/** Return what a configuration would change, a line each. */
export const changesTo = (config) => linesOf(differences(desk.config, config));
