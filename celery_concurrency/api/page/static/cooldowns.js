// Cool-downs: the dialogs that set, extend and lift them.

import { desk, limitFields, limitOf, numberInput, question } from "./actions.js";
import { changeLine } from "./changes.js";
import { ask, query } from "./client.js";
import { element } from "./dom.js";
import { duration, now, time } from "./format.js";
import { dimensionsOf } from "./limitnames.js";
import { warning } from "./messages.js";
import { visible } from "./names.js";
import { UNITS } from "./rates.js";
import { t } from "./texts.js";

const MOST = 7 * 86_400; // seconds: the API's bound
const UNIT_TEXTS = new Map([["s", t("unit_s")], ["m", t("unit_m")], ["h", t("unit_h")], ["d", t("unit_d")]]);

/** Return fields for how long, and why. */
function fieldsFor(reason) {
  const amount = numberInput(10, 1, MOST / 60);
  const bound = () => (amount.max = MOST / UNITS.get(unit.value));
  const options = [...UNIT_TEXTS].map(([one, text]) => element("option", { value: one, selected: one === "m" ? "" : null }, text));
  const unit = element("select", { oninput: bound }, ...options);
  return {
    amount: { label: t("how_long"), input: amount },
    unit: { label: t("unit"), input: unit },
    reason: { label: t("cool_reason"), input: element("input", { maxlength: 200, autocomplete: "off", value: reason }) },
  };
}

const secondsOf = ({ amount, unit }) => Number(amount) * UNITS.get(unit);

function effects(limit, values, until) {
  const seconds = secondsOf(values);
  if (until >= now() + seconds) return [t("cool_longer", { limit, until: time(until) })];
  return [t("cool_effect", { limit, until: time(now() + seconds), duration: duration(seconds) })];
}

const coolingText = (until) => t("cooling_until", { until: time(until) });

/** @param before in words; null if it is not known. */
async function send(limit, values, before) {
  const { data, warnings } = await ask("POST", "/cooldowns", {
    body: { limit, seconds: secondsOf(values), ...(values.reason ? { reason: values.reason } : {}) },
  });
  return [changeLine(limit, before, coolingText(data.until)), ...warnings.map(warning)];
}

/** @param current its cool-down, `{until, reason}`; null where it has none. */
export function coolDown(limit, current = null) {
  question({
    title: t(current ? "extend_title" : "cool_title", { limit }),
    label: t(current ? "extend" : "cool_down"),
    danger: true,
    fields: fieldsFor(current ? visible(current.reason) : ""),
    says: (values) => effects(limit, values, current?.until ?? 0),
    act: (values) => send(limit, values, current ? coolingText(current.until) : t("open")),
  });
}

export function coolAnother() {
  question({
    title: t("cool_another"),
    label: t("cool_down"),
    danger: true,
    fields: { ...limitFields([...dimensionsOf(desk.config), "global"], t("one_name")), ...fieldsFor("") },
    says: (values) => effects(limitOf(values), values, 0),
    act: (values) => send(limitOf(values), values, null),
  });
}

export function lift(limit) {
  question({
    title: t("lift_title", { limit }),
    label: t("lift"),
    says: () => [t("lift_effect", { limit })],
    act: async () => {
      await ask("DELETE", query("/cooldowns", { limit }));
      return [changeLine(limit, t("cooling"), t("open"))];
    },
  });
}
