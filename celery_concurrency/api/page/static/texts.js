// The page's texts, in its language.

import { entry, visible } from "./names.js";

const TEXTS = JSON.parse(document.getElementById("texts").textContent);

export const LANGUAGE = document.documentElement.lang;

/** Return a text, with its `{names}` filled in. */
export function t(key, values = {}) {
  return TEXTS[key].replace(/\{(\w+)\}/g, (all, name) => visible(String(entry(values, name) ?? all)));
}
