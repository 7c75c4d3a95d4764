// Adaptive limits in the configuration: the dialogs that set and remove them.

import { changing, desk, limitFields, limitOf, modeField, numberInput, question } from "./actions.js";
import { element } from "./dom.js";
import { count } from "./format.js";
import { dimensionsOf, maxOf } from "./limitnames.js";
import { entry } from "./names.js";
import { t } from "./texts.js";
import { ADAPTIVE, maxText } from "./values.js";

/** The API's bounds. */
const MAX_LIMIT = 1_000_000;
const MAX_EVERY = 86_400; // s

/** @param limit is null where it is yet to be named. */
function fieldsFor(limit, given) {
  const { min, max, decrease, every, mode } = { ...ADAPTIVE, ...given };
  const path = (name) => (limit ? `adaptive.${limit}.${name}` : undefined);
  const most = numberInput(max, 1, MAX_LIMIT);
  const factor = element("input", { type: "number", min: 0, max: 1, step: "any", required: "", value: decrease, inputmode: "decimal" });
  const bounds = (value) => (value === "" || (Number(value) > 0 && Number(value) < 1) ? "" : t("decrease_bounds"));
  const order = (value) => (Number(value) > Number(most.value) ? t("adaptive_min_over_max") : "");
  return {
    min: { label: t("adaptive_min"), input: numberInput(min, 1, MAX_LIMIT), problemOf: order, path: path("min") },
    max: { label: t("adaptive_max"), input: most, problemOf: () => "", path: path("max") },
    every: { label: t("adaptive_every"), input: numberInput(every, 1, MAX_EVERY), problemOf: () => "", path: path("every") },
    decrease: { label: t("adaptive_decrease"), input: factor, problemOf: bounds, path: path("decrease") },
    ...modeField(mode),
  };
}

function effects(limit, { min, max, mode }) {
  const values = { limit, min: count(Number(min)), max: count(Number(max)) };
  if (mode === "observe") return [t("adaptive_observe_effect", values)];
  const most = maxOf(limit, desk.config);
  return [
    // Where it stands is by its entry: another one begins anew.
    t(entry(desk.config.adaptive, limit) ? "adaptive_edit_effect" : "adaptive_effect", values),
    ...(most && most < max ? [t("adaptive_configured", { max: maxText(most) })] : []),
  ];
}

const changeOf = (limit, { min, max, every, decrease, mode }) => ({
  adaptive: { [limit]: { min: Number(min), max: Number(max), every: Number(every), decrease: Number(decrease), mode } },
});

export function editAdaptive(limit) {
  question({
    title: t("adaptive_edit_title", { limit }),
    label: t("apply"),
    fields: fieldsFor(limit, entry(desk.config.adaptive, limit) ?? {}),
    says: (values) => effects(limit, values),
    act: changing("PUT", "/config", (values) => changeOf(limit, values)),
  });
}

export function setAdaptive() {
  question({
    title: t("set_adaptive"),
    label: t("apply"),
    fields: { ...limitFields([...dimensionsOf(desk.config), "global"], t("name")), ...fieldsFor(null, {}) },
    says: (values) => effects(limitOf(values), values),
    act: changing("PUT", "/config", (values) => changeOf(limitOf(values), values)),
  });
}

export function removeAdaptive(limit) {
  question({
    title: t("remove_title", { field: `adaptive ${limit}` }),
    label: t("remove"),
    danger: true,
    says: () => [t("remove_adaptive_effect", { limit })],
    act: changing("PUT", "/config", () => ({ adaptive: { [limit]: null } })),
  });
}
