// Names of limits: how they are shown, and which change of the configuration sets one.

import { entry, visible } from "./names.js";
import { t } from "./texts.js";

const MAPS = new Map([["platform", "platform_max"], ["task_type", "task_type_max"], ["account", "account_overrides"]]);
const TEXTS = new Map([
  ["global", t("global")], ["platform", t("platform")], ["task_type", t("task_type")], ["account", t("account")],
]);

/** Return a limit's dimension and name; a name may have colons. */
export function split(limit) {
  const colon = limit.indexOf(":");
  return colon < 0 ? [limit, null] : [limit.slice(0, colon), limit.slice(colon + 1)];
}

/** Return a dimension in words; the user's own dimensions by their names. */
export const dimensionText = (dimension) => TEXTS.get(dimension) ?? visible(dimension);

/** Return the dimensions of a configuration, without "global". */
export const dimensionsOf = (config) => [...MAPS.keys(), ...Object.keys(config.dimensions ?? {})];

/** Return whether a configuration can set this limit: not if its dimension was removed. */
export function isSettable(limit, config) {
  const [dimension, name] = split(limit);
  return name === null ? limit === "global" : dimensionsOf(config).includes(dimension);
}

/** Return the change that gives a limit this maximum; null removes its entry. */
export function changeOf(limit, max) {
  const [dimension, name] = split(limit);
  if (name === null) return { global_max: max };
  if (limit === "account:*") return { account_max: max };
  if (MAPS.has(dimension)) return { [MAPS.get(dimension)]: { [name]: max } };
  return { dimensions: { [dimension]: name === "*" ? { max } : { overrides: { [name]: max } } } };
}

/** Return the limit whose maximum a field of the configuration is, as "platform_max.douyin"; null if it is none. */
export function limitOfField(field) {
  if (field === "global_max") return "global";
  if (field === "account_max") return "account:*";
  for (const [dimension, map] of MAPS) {
    if (field.startsWith(`${map}.`)) return `${dimension}:${field.slice(map.length + 1)}`;
  }
  const [, dimension, name = "*"] = /^dimensions\.(.+?)\.(?:max|overrides\.(.+))$/s.exec(field) ?? [];
  return dimension ? `${dimension}:${name}` : null;
}

/** Return a limit's maximum in a configuration: a number, or an object where it is only observed. */
export function maxOf(limit, config) {
  const [dimension, name] = split(limit);
  if (name === null) return config.global_max;
  if (dimension === "account") return entry(config.account_overrides, name) ?? config.account_max;
  if (MAPS.has(dimension)) {
    const maxima = config[MAPS.get(dimension)];
    return entry(maxima, name) ?? entry(maxima, "*") ?? 0;
  }
  const own = entry(config.dimensions, dimension);
  return entry(own?.overrides, name) ?? own?.max ?? 0;
}

/** Return the limits that have an entry of their own, and whether it can be removed. */
export function entriesOf(config) {
  const named = (dimension, map) => Object.keys(map ?? {}).map((name) => [`${dimension}:${name}`, true]);
  return [
    ["global", false],
    ["account:*", false],
    ...named("account", config.account_overrides),
    ...named("platform", config.platform_max),
    ...named("task_type", config.task_type_max),
    ...Object.entries(config.dimensions ?? {}).flatMap(([dimension, own]) => [
      [`${dimension}:*`, false], ...named(dimension, own.overrides),
    ]),
  ];
}
