// Fair shares in the configuration: the dialogs that make a dimension fair and set the weight of a name.

import { changing, desk, limitFields, numberInput, question } from "./actions.js";
import { dimensionsOf, dimensionText } from "./limitnames.js";
import { t } from "./texts.js";

/** The API's bound. */
const MAX_WEIGHT = 100;
const BUILT_IN = ["account", "platform"];

/** Return the change that makes a dimension fair, with these weights; null makes it fair no more. */
function changeOf(dimension, weights) {
  if (BUILT_IN.includes(dimension)) return { fair: { [dimension]: weights && { weights } } };
  return { dimensions: { [dimension]: weights ? { fair: true, weights } : { fair: false } } };
}

/** Return the fair dimension of a configuration and its weights: a list of one entry, or of none. */
export function fairOf({ fair = {}, dimensions = {} }) {
  const own = Object.entries(dimensions).filter(([, one]) => one.fair);
  return [...Object.entries(fair), ...own].map(([dimension, { weights = {} }]) => [dimension, weights]);
}

/** Return a dimension's weights in words. */
export function sharesText(weights) {
  const parts = Object.entries(weights).map(([name, weight]) => t("share_of", { name, weight }));
  return [...parts, t(parts.length ? "share_others" : "share_equal")].join(t("comma"));
}

/** @param dimension is null where it is yet to be named. */
export function setShares(dimension = null) {
  const fields = limitFields(dimension ? [dimension] : dimensionsOf(desk.config).filter((one) => one !== "task_type"), t("shares_name"));
  fields.name.input.required = false;
  const weights = ({ name, weight }) => (name ? { [name]: Number(weight) } : {});
  question({
    title: t("set_shares"),
    label: t("apply"),
    fields: { ...fields, weight: { label: t("shares_weight"), input: numberInput(1, 1, MAX_WEIGHT) } },
    says: (values) => [
      t("shares_effect", { dimension: dimensionText(values.dimension) }),
      ...(values.name ? [t("shares_weight_effect", { name: values.name, weight: values.weight })] : []),
    ],
    act: changing("PUT", "/config", (values) => changeOf(values.dimension, weights(values))),
  });
}

export function removeShares(dimension) {
  question({
    title: t("remove_title", { field: `fair ${dimension}` }),
    label: t("remove"),
    danger: true,
    says: () => [t("remove_shares_effect")],
    act: changing("PUT", "/config", () => changeOf(dimension, null)),
  });
}
