// The view of the configuration, and of its history.

import { desk, editLimit, editTimeout, removeEntry, reset, resume, toggle } from "./actions.js";
import { ask } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { historyRow } from "./history.js";
import { count } from "./format.js";
import { entriesOf, maxOf, maxText } from "./limitnames.js";
import { t } from "./texts.js";

byId("reset").addEventListener("click", reset);

export const configuration = {
  async read(_, signal) {
    const { versions } = (await ask("GET", "/config/history", { signal })).data;
    return { versions, config_problem: versions[0]?.problem };
  },
  show({ versions }) {
    write(byId("config-version"), t("config_version", { version: (desk.version ?? "").replace(/^(W\/)?"|"$/g, "") }));
    keepRows(byId("config-rows"), settingsOf(desk.config), (one) => one.name, makeRow);
    shown(byId("history-table"), versions.length > 0);
    shown(byId("history-none"), versions.length === 0);
    // One that was written by hand and is not valid left the one before it in force.
    const inForce = versions.find((one) => !one.problem)?.version;
    const rows = versions.map((one, place) => ({ ...one, inForce: one.version === inForce, isLast: place === 0 }));
    keepRows(byId("history-rows"), rows, (one) => one.version, historyRow);
  },
};

/** Return what is set: `{name, note, value, actions: [[text, function, danger], ...]}`. */
function settingsOf(config) {
  const { enabled, timeout, paused = [] } = config;
  const flip = enabled ? [t("switch_off"), () => toggle(false), true] : [t("switch_on"), () => toggle(true)];
  return [
    { name: "enabled", value: enabled ? t("on") : t("off"), actions: [flip] },
    { name: "timeout", value: t("seconds", { count: count(timeout) }), actions: [[t("edit"), editTimeout]] },
    ...paused.map((limit) => ({
      name: `paused ${limit}`, value: t("paused"), actions: [[t("resume"), () => resume(limit)]],
    })),
    ...entriesOf(config).map(([limit, removable]) => ({
      name: limit,
      note: limit.endsWith(":*") ? t("any_other") : "",
      value: maxText(maxOf(limit, config)),
      actions: [
        [t("edit"), () => editLimit(limit)],
        ...(removable ? [[t("remove"), () => removeEntry(limit), true]] : []),
      ],
    })),
  ];
}

function makeRow({ name, note = "" }) {
  const value = element("td");
  const buttons = element("td", { class: "buttons", "data-change": "" });
  let texts = "";
  const row = element("tr", {}, element("th", { scope: "row" }, element("code", {}, name), " ", element("span", { class: "aside" }, note)), value, buttons);
  row.show = (one) => {
    write(value, one.value);
    if (texts === (texts = one.actions.map(([text]) => text).join())) return;
    buttons.replaceChildren(...one.actions.map(([text, act, danger]) => {
      const button = changing(text, act, danger);
      button.setAttribute("aria-label", `${text}: ${name}`);
      return button;
    }));
  };
  return row;
}
