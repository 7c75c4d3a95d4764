// What an operator can do here: each action asks first, and shows its effect at once.

import { changeLine, differences, shortLinesOf } from "./changes.js";
import { ask, waiterPath } from "./client.js";
import { confirm } from "./dialog.js";
import { element } from "./dom.js";
import { count } from "./format.js";
import { changeOf, dimensionText, dimensionsOf, maxOf } from "./limitnames.js";
import { tell, warning } from "./messages.js";
import { visible } from "./names.js";
import { t } from "./texts.js";
import { maxText } from "./values.js";

/** The configuration that the page shows, its ETag, and the function that reads all again. */
export const desk = { config: null, version: null, refresh: () => {} };

/** Ask about something that can be done here; see `confirm`. */
export function question(about) {
  confirm({
    says: () => [],
    ...about,
    lost: () => desk.refresh(),
    done: (lines) => {
      tell(lines);
      desk.refresh();
    },
  });
}

/** Send a change, which applies only to the version that the operator saw when asked. */
export function changing(method, path, bodyOf) {
  const { config: before, version } = desk;
  return async (values) => {
    const { data, message, warnings, version: newest } = await ask(method, path, { body: bodyOf(values), version });
    // Stored at once: the next change may come before the page has read it again.
    Object.assign(desk, { config: data, version: newest });
    const lines = shortLinesOf(differences(before, data));
    return [...(lines.length ? lines : [message]), ...warnings.map(warning)];
  };
}

export const numberInput = (value, least, most) =>
  element("input", { type: "number", min: least, max: most, step: 1, required: "", value, inputmode: "numeric" });

/** Return the field that says whether a maximum is in force. */
export function modeField(mode) {
  const modes = [["enforce", t("mode_enforce")], ["observe", t("mode_observe")]];
  const options = modes.map(([value, text]) => element("option", { value }, text));
  const input = element("select", {}, ...options);
  input.value = mode;
  return { mode: { label: t("mode"), input } };
}

const maximumOf = ({ max, mode }) => (mode === "observe" ? { max: Number(max), mode } : Number(max));

function editEffects(limit, before, after, current) {
  if (JSON.stringify(before) === JSON.stringify(after)) return [t("edit_same")];
  if (typeof after === "object") return [t("observe_effect", { limit, max: maxText(after.max) })];
  const lines = [t("edit_effect", { limit, before: maxText(before), after: maxText(after) })];
  const lower = after && (!before || typeof before === "object" || after < before);
  if (!lower) lines.push(t("edit_raise"));
  else if (current > after) lines.push(t("edit_lower", { current: count(current), after: count(after) }));
  return lines;
}

/** @param current how many run in it, if that is known. */
export function editLimit(limit, current = 0) {
  const before = maxOf(limit, desk.config);
  question({
    title: t("edit_title", { limit }),
    label: t("apply"),
    fields: {
      max: { label: t("new_limit"), input: numberInput(before.max ?? before, 0, 1_000_000) },
      ...modeField(before.mode ?? "enforce"),
    },
    says: (values) => editEffects(limit, before, maximumOf(values), current),
    act: changing("PUT", "/config", (values) => changeOf(limit, maximumOf(values))),
  });
}

/** Return fields for a limit's `dimension` and `name`. */
export function limitFields(dimensions, label) {
  const options = dimensions.map((one) => element("option", { value: one }, dimensionText(one)));
  const name = element("input", { required: "", maxlength: 200, pattern: ".*\\S.*", autocomplete: "off" });
  const dimension = element("select", { oninput: () => (name.disabled = dimension.value === "global") }, ...options);
  return { dimension: { label: t("dimension"), input: dimension }, name: { label, input: name } };
}

/** Return the limit that such fields name. */
export const limitOf = ({ dimension, name }) => (dimension === "global" ? dimension : `${dimension}:${name}`);

export function setAnother() {
  const config = desk.config;
  question({
    title: t("another_title"),
    label: t("apply"),
    fields: {
      ...limitFields(dimensionsOf(config), t("name")),
      max: { label: t("new_limit"), input: numberInput(1, 0, 1_000_000) },
      ...modeField("enforce"),
    },
    says: (values) => editEffects(limitOf(values), maxOf(limitOf(values), config), maximumOf(values), 0),
    act: changing("PUT", "/config", (values) => changeOf(limitOf(values), maximumOf(values))),
  });
}

export function editTimeout() {
  question({
    title: t("edit_title", { limit: "timeout" }),
    label: t("apply"),
    fields: { seconds: { label: t("new_timeout"), input: numberInput(desk.config.timeout, 1, 86_400) } },
    says: ({ seconds }) => [t("timeout_effect", { after: seconds })],
    act: changing("PUT", "/config", ({ seconds }) => ({ timeout: Number(seconds) })),
  });
}

export function removeEntry(limit) {
  question({
    title: t("remove_title", { field: limit }),
    label: t("remove"),
    danger: true,
    says: () => [t("remove_effect")],
    act: changing("PUT", "/config", () => changeOf(limit, null)),
  });
}

export function pause(limit) {
  const paused = [...(desk.config.paused ?? []), limit];
  question({
    title: t("pause_title", { limit }),
    label: t("pause"),
    danger: true,
    says: () => [t("pause_effect", { limit })],
    act: changing("PUT", "/config", () => ({ paused })),
  });
}

export function resume(limit) {
  const paused = (desk.config.paused ?? []).filter((one) => one !== limit);
  question({
    title: t("resume_title", { limit }),
    label: t("resume"),
    says: () => [t("resume_effect", { limit })],
    act: changing("PUT", "/config", () => ({ paused })),
  });
}

export function toggle(on) {
  question({
    title: on ? t("on_title") : t("off_title"),
    label: on ? t("switch_on") : t("switch_off"),
    danger: !on,
    says: () => [on ? t("on_effect") : t("off_effect")],
    act: changing("PUT", "/config", () => ({ enabled: on })),
  });
}

/** @param differences what it changes, a line each. */
export function reset(differences) {
  question({
    title: t("reset_title"),
    label: t("reset"),
    danger: true,
    says: () => (differences.length ? [t("reset_effect"), ...differences] : [t("reset_same")]),
    act: changing("POST", "/reset", () => undefined),
  });
}

/** @param differences what it changes, a line each. */
export function rollBack(version, differences) {
  question({
    title: t("rollback_title", { version }),
    label: t("roll_back"),
    danger: true,
    says: () => (differences.length ? [t("rollback_effect", { version }), ...differences] : [t("rollback_same", { version })]),
    act: changing("POST", "/config/rollback", () => ({ version })),
  });
}

export function release(holder) {
  question({
    title: t("release_title"),
    label: t("release"),
    danger: true,
    says: () => [
      t("release_effect", { task: nameOf(holder) }),
      t("release_limits", { limits: holder.limits.join(", ") }),
    ],
    act: async () => {
      await ask("DELETE", `/tokens/${encodeURIComponent(holder.token)}`);
      const limits = holder.limits.join(", ");
      return [changeLine(t("token_of", { task: nameOf(holder) }), t("token_held"), t("token_released", { limits }))];
    },
  });
}

export function cancelTask(waiter) {
  question({
    title: t("cancel_title"),
    label: t("cancel_task"),
    danger: true,
    says: () => [t("cancel_effect", { task: nameOf(waiter) })],
    act: async () => {
      await ask("DELETE", waiterPath(waiter.task_id));
      return [changeLine(nameOf(waiter), t("task_waited"), t("task_cancelled"))];
    },
  });
}

/** @param waiting how many there are now. */
export function cancelAll(limit, waiting) {
  question({
    title: t("cancel_all_title", { limit }),
    label: t("cancel_all"),
    danger: true,
    says: () => [t("cancel_all_effect", { limit, count: count(waiting) })],
    act: async () => {
      const { data } = await ask("DELETE", `/waiting?${new URLSearchParams({ limit })}`);
      const cancelled = t("count_cancelled", { count: count(data.cancelled) });
      return [changeLine(limit, t("count_waited", { count: count(waiting) }), cancelled)];
    },
  });
}

const nameOf = ({ task, task_id: id }) => visible(task ? `${task} (${id})` : id);
