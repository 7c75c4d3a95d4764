// The operator: token, name, and what they may do.

const TOKEN = "celery-concurrency token";
const OPERATOR = "celery-concurrency operator";

// In this tab only, and sent by our own scripts only: a cookie would go with requests of other sites.
export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** The name for the history. It is no secret, so the browser may remember it. */
export const operator = {
  get: () => localStorage.getItem(OPERATOR) ?? "",
  set: (value) => localStorage.setItem(OPERATOR, value),
};

/** What the API says of this caller, `{operator, may_change}`; null before it was asked. */
export const caller = {
  known: null,
  take(answer) {
    this.known = answer;
    document.body.classList.toggle("may-change", Boolean(answer?.may_change));
  },
};
