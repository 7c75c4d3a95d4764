// Bounds on waiting in the configuration: the dialogs that set and remove them.

import { changing, desk, limitFields, limitOf, numberInput, question } from "./actions.js";
import { dimensionsOf } from "./limitnames.js";
import { entry } from "./names.js";
import { t } from "./texts.js";
import { boundsText } from "./values.js";

/** The API's bounds. */
const MAX_WAITING = 1_000_000;
const MAX_PERIOD = 7 * 86_400; // s

/** @param limit is null where it is yet to be named. */
function fieldsFor(limit, { most = "", seconds = "" }) {
  const field = (name, label, value, bound) => {
    const input = numberInput(value, 1, bound);
    input.required = false;
    return { label, input, problemOf: () => "", path: limit ? `waiting.${limit}.${name}` : undefined };
  };
  return {
    most: field("most", t("bounds_most_label"), most, MAX_WAITING),
    seconds: field("seconds", t("bounds_seconds_label"), seconds, MAX_PERIOD),
  };
}

/** Return the bounds that were typed: an empty field is none. */
const typed = ({ most, seconds }) => ({ most: Number(most) || null, seconds: Number(seconds) || null });

const effects = (limit, values) => [t("bounds_effect", { limit, bounds: boundsText(typed(values)) }), t("bounds_since")];

const changeOf = (limit, values) => ({ waiting: { [limit]: typed(values) } });

export function editBounds(limit) {
  question({
    title: t("bounds_edit_title", { limit }),
    label: t("apply"),
    fields: fieldsFor(limit, entry(desk.config.waiting, limit) ?? {}),
    says: (values) => effects(limit, values),
    act: changing("PUT", "/config", (values) => changeOf(limit, values)),
  });
}

export function setBounds() {
  question({
    title: t("set_bounds"),
    label: t("apply"),
    fields: { ...limitFields([...dimensionsOf(desk.config), "global"], t("name")), ...fieldsFor(null, {}) },
    says: (values) => effects(limitOf(values), values),
    act: changing("PUT", "/config", (values) => changeOf(limitOf(values), values)),
  });
}

export function removeBounds(limit) {
  question({
    title: t("remove_title", { field: `waiting ${limit}` }),
    label: t("remove"),
    danger: true,
    says: () => [t("remove_bounds_effect", { limit })],
    act: changing("PUT", "/config", () => ({ waiting: { [limit]: null } })),
  });
}
