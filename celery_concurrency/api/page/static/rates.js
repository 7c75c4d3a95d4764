// Rates: how they are typed, and the dialogs that set and remove them.

import { changing, desk, limitFields, limitOf, question } from "./actions.js";
import { element } from "./dom.js";
import { count, period } from "./format.js";
import { dimensionsOf, split } from "./limitnames.js";
import { entry } from "./names.js";
import { t } from "./texts.js";
import { ratesText } from "./values.js";

/** The API's bounds: of a rate, and of a limit's rates. */
const MAX_STARTS = 10_000;
const MAX_PERIOD = 7 * 86_400; // s
const MAX_RATES = 4;

/** Units of time as they are typed. */
export const UNITS = new Map([["s", 1], ["m", 60], ["h", 3600], ["d", 86_400]]);

/** Behind a rate that is only observed. */
const OBSERVED = ":observe";

/** Return rates as they are typed: "1/30s, 15/1d". */
function typed(rates) {
  const unitOf = (per) => [...UNITS].findLast(([, size]) => per % size === 0);
  const mark = (mode) => (mode === "observe" ? OBSERVED : "");
  return rates.map(({ max, per, mode }) => `${max}/${per / unitOf(per)[1]}${unitOf(per)[0]}${mark(mode)}`).join(", ");
}

const partsOf = (text) => text.split(/[\s,，、;；]+/u).filter(Boolean);

/** Return a rate that was typed, or what is wrong with it. */
function parsed(text) {
  const [, max, amount, unit, observed] = /^(\d+)\/(\d+)([smhd])(:observe)?$/.exec(text) ?? [];
  if (!max) return t("rate_unclear", { text });
  const per = Number(amount) * UNITS.get(unit);
  if (max < 1 || max > MAX_STARTS) return t("rate_max_bounds", { text, most: count(MAX_STARTS) });
  if (per < 1 || per > MAX_PERIOD) return t("rate_per_bounds", { text, most: period(MAX_PERIOD) });
  return { max: Number(max), per, ...(observed ? { mode: "observe" } : {}) };
}

const parsedAll = (text) => partsOf(text).map(parsed);

function problemOf(text) {
  const rates = parsedAll(text);
  if (rates.length > MAX_RATES) return t("rates_too_many", { most: MAX_RATES });
  return rates.find((one) => typeof one === "string") ?? "";
}

const ratesField = (limit, rates) => ({
  rates: {
    label: t("rates_label"),
    input: element("input", { required: "", value: typed(rates), autocomplete: "off", spellcheck: "false" }),
    problemOf,
    path: limit ? `rates.${limit}` : "rates",
  },
});

function effects(limit, text) {
  const wildcard = `${split(limit)[0]}:*`;
  const replaces = limit !== wildcard && entry(desk.config.rates, wildcard);
  return [
    ...parsedAll(text).map(({ max, per, mode }) => (
      t(mode ? "rate_observed_effect" : "rate_effect", { limit, max: count(max), period: period(per) }))),
    ...(replaces ? [t("rates_replace", { wildcard, rates: ratesText(replaces) })] : []),
    t("rates_effect"),
  ];
}

const changeOf = (limit, rates) => ({ rates: { [limit]: rates } });

export function editRates(limit) {
  question({
    title: t("rates_title", { limit }),
    label: t("apply"),
    fields: ratesField(limit, entry(desk.config.rates, limit) ?? []),
    says: ({ rates }) => effects(limit, rates),
    act: changing("PUT", "/config", ({ rates }) => changeOf(limit, parsedAll(rates))),
  });
}

export function setRates() {
  question({
    title: t("set_rates"),
    label: t("apply"),
    fields: { ...limitFields([...dimensionsOf(desk.config), "global"], t("name")), ...ratesField("", []) },
    says: (values) => effects(limitOf(values), values.rates),
    act: changing("PUT", "/config", (values) => changeOf(limitOf(values), parsedAll(values.rates))),
  });
}

export function removeRates(limit) {
  question({
    title: t("remove_title", { field: `rates ${limit}` }),
    label: t("remove"),
    danger: true,
    says: () => [t("remove_rates_effect", { limit })],
    act: changing("PUT", "/config", () => changeOf(limit, null)),
  });
}
