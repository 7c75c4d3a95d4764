// Limits that are only observed: what they would have done, and putting them in force.

import { changing as sending, desk, question } from "./actions.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count, duration, number, timeElement } from "./format.js";
import { changeOf } from "./limitnames.js";
import { entry, visible } from "./names.js";
import { t } from "./texts.js";
import { maxText, ratesText } from "./values.js";

/** How many are shown at most. */
const ROWS = 100;

/** Show those of an answer of /usage whose names have this text in them. */
export function showObserved(all, wanted) {
  const found = all.filter(({ limit }) => limit.toLowerCase().includes(wanted));
  keepRows(byId("observed-rows"), found.slice(0, ROWS), ({ kind, limit }) => `${kind} ${limit}`, makeRow);
  shown(byId("observed"), found.length > 0);
  const more = found.length - ROWS;
  shown(byId("observed-more"), more > 0);
  write(byId("observed-more"), t("more_limits", { count: count(more) }));
}

function allowedText({ limit, kind, max, rates }) {
  if (kind === "rates") return ratesText(rates.map(({ mode, ...rate }) => rate));
  const range = kind === "adaptive" ? entry(desk.config.adaptive, limit) : null;
  return range ? t("adaptive_between", { min: count(range.min), max: count(range.max) }) : maxText(max);
}

/** Return the change that puts one in force. */
function enforcing({ limit, kind, max }) {
  if (kind === "max") return changeOf(limit, max);
  if (kind === "adaptive") return { adaptive: { [limit]: { mode: "enforce" } } };
  const rates = entry(desk.config.rates, limit) ?? [];
  return { rates: { [limit]: rates.map(({ mode, ...rate }) => rate) } };
}

const waitText = (seconds) => (seconds < 60 ? t("seconds", { count: number(seconds) }) : duration(seconds));

function makeRow({ limit }) {
  let now = null;
  const allowed = element("td");
  const runs = element("td");
  const denied = element("td");
  const since = timeElement();
  const enforce = changing(t("put_in_force"), () => putInForce(now));
  const row = element("tr", {}, element("th", { scope: "row" }, element("code", {}, visible(limit))),
    allowed, runs, denied, element("td", {}, since),
    element("td", { class: "buttons", "data-change": "" }, enforce));
  row.show = (one) => {
    now = one;
    write(allowed, allowedText(one));
    write(runs, count(one.runs));
    write(denied, deniedText(one));
    since.show(one.since);
    enforce.setAttribute("aria-label", `${t("put_in_force")}: ${visible(limit)} ${allowedText(one)}`);
  };
  return row;
}

function deniedText({ runs, would_deny: denied, would_wait: { mean, longest } }) {
  if (!denied) return t("would_deny_none");
  const share = Math.round((100 * denied) / runs);
  return t("would_deny", { count: count(denied), share, mean: waitText(mean), longest: waitText(longest) });
}

function putInForce(one) {
  const { limit } = one;
  const change = enforcing(one);
  question({
    title: t("enforce_title", { limit }),
    label: t("put_in_force"),
    says: () => [t("enforce_effect", { limit, value: allowedText(one) }), deniedText(one)],
    act: sending("PUT", "/config", () => change),
  });
}
