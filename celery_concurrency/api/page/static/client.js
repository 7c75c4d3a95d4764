// Calls of the API. Whatever goes wrong is thrown as an ApiError.

import { noteServerTime } from "./format.js";
import { caller, operator, token } from "./session.js";
import { LANGUAGE, t } from "./texts.js";

const { api: API, csrfHeader, csrfToken } = document.body.dataset;
const PATIENCE = 15_000; // ms

/** An error as in the API's envelope; its status is 0 if there was no answer. */
export class ApiError extends Error {
  constructor(status, code, message, details = []) {
    super(message);
    Object.assign(this, { status, code, details });
  }
}

/** Return `{data, message, warnings, version}` of an answer: texts, and its ETag. */
export async function ask(method, path, { body, version, signal } = {}) {
  const response = await send(method, path, { body, version, signal });
  noteServerTime(response.headers.get("Date"));
  let answer;
  try {
    answer = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    answer = {};
  }
  if (answer.success === true) {
    const warnings = (answer.warnings ?? []).map(({ problem }) => problem);
    return { ...answer, warnings, version: response.headers.get("ETag") };
  }
  const { code, message, details } = answer.error ?? {};
  throw new ApiError(response.status, code ?? "", message ?? t("no_envelope", { status: response.status }), details);
}

/** Return a path's query; what is empty is left out. */
export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Return the path of a task that waits; in one, browsers take "." and ".." for folders. */
export const waiterPath = (id) =>
  id === "." || id === ".." ? query("/waiting/-", { id }) : `/waiting/${encodeURIComponent(id)}`;

async function send(method, path, { body, version, signal }) {
  const headers = { Accept: "application/json", "Accept-Language": LANGUAGE };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (version) headers["If-Match"] = version;
  if (method !== "GET" && !caller.known?.operator && operator.get()) headers["X-Operator"] = inBytes(operator.get());
  if (method !== "GET" && csrfHeader) Object.assign(headers, { [csrfHeader]: csrfToken });
  const signals = [AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])];
  try {
    return await fetch(API + path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", signal: AbortSignal.any(signals),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "no_answer", t("no_answer"));
  }
}

// A header is bytes: a name is sent in UTF-8, as curl does.
const inBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
