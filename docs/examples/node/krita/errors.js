// What can go wrong, and what became of the request (protocol/README.md, "Errors").

export const OUTCOMES = ["not applied", "applied", "unknown"];

// Status by number; 0 is success. The place is the number.
export const STATUSES = [
  "OK",
  "BAD_REQUEST",
  "UNAUTHENTICATED",
  "FORBIDDEN",
  "CONDITION_FAILED",
  "TOO_LARGE",
  "NOT_LEADER",
  "WRONG_SHARD",
  "BUSY",
  "UNAVAILABLE",
  "UNKNOWN",
  "NO_SPACE",
  "SESSION_EXPIRED",
  "UNSUPPORTED",
  "INTERNAL",
  "FOREIGN",
  "DEADLINE",
];

/**
 * Every error of this client. `status` is a name of STATUSES (or "STATUS_200" for one
 * that a newer server has), `outcome` one of OUTCOMES, `hint` what to do, `detail` a
 * Map for programs.
 */
export class Problem extends Error {
  constructor(status, message, { hint = "", outcome = "not applied", detail = new Map() } = {}) {
    super(message);
    this.name = "Problem";
    this.status = status;
    this.hint = hint;
    this.outcome = outcome;
    this.detail = detail;
  }
}

/** A request that may have been applied, or may yet be. */
export function inDoubt(message, cause) {
  const problem = new Problem("UNKNOWN", message, { outcome: "unknown" });
  problem.hint = "read the key before you write it again";
  problem.cause = cause;
  return problem;
}

/** The error that a status and `[message, hint, outcome, detail]` mean. */
export function problemOf(status, item) {
  if (!Array.isArray(item) || typeof item[0] !== "string") {
    return new Problem("BAD_REQUEST", "an error is [message, hint, outcome, detail]", {
      outcome: "unknown",
    });
  }
  const [message, hint, outcome, detail] = item;
  return new Problem(STATUSES[status] ?? `STATUS_${status}`, message, {
    hint: hint ?? "",
    outcome: OUTCOMES[outcome] ?? "unknown",
    detail: detail instanceof Map ? detail : new Map(),
  });
}
