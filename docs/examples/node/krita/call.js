// One request until its outcome is known: whom to ask, what to repeat, when to give up.
//
// An error that says "not applied" leaves everything open. A write whose answer got lost is
// in doubt from then on: it is sent again with its own session and sequence, and only what
// the shard's log says of it (success, CONDITION_FAILED, BAD_REQUEST) ends the doubt. When
// the session itself is gone, so is the hope to find out.

import { inDoubt, Problem } from "./errors.js";

const PAUSE_FIRST_MS = 20;
const PAUSE_MS_MAX = 500;
const ATTEMPT_MS_MAX = 2000;

const ANSWERS = new Set(["CONDITION_FAILED", "BAD_REQUEST"]); // the same for every attempt
const TRANSIENT = new Set([
  "NOT_LEADER",
  "WRONG_SHARD",
  "BUSY",
  "UNAVAILABLE",
  "UNKNOWN",
  "SESSION_EXPIRED",
  "DEADLINE",
]);

export class Call {
  /**
   * `request`: {op, fields(ticket), key?, shard?, write?, stale?, node?}. What is no write is
   * harmless to repeat.
   */
  constructor(router, sessions, request, timeoutMs) {
    this.router = router;
    this.sessions = sessions;
    this.request = request;
    this.deadline = Date.now() + timeoutMs;
    this.ticket = null; // a write's place in its session
    this.inDoubt = false;
    this.row = null; // of the shard map
    this.address = null; // of the last attempt
    this.avoid = null; // the node that has just failed
    this.pauses = 0;
    this.sent = false; // whether the last attempt came to that
    this.finished = false;
  }

  get leftMs() {
    return this.deadline - Date.now();
  }

  /** Resolves with the reply's elements. Rejects with a Problem. */
  async run() {
    try {
      for (;;) {
        try {
          return await this.attempt();
        } catch (problem) {
          if (!(problem instanceof Problem)) {
            throw problem;
          }
          await this.judge(problem);
        }
      }
    } finally {
      this.finished = true;
      this.ticket?.settle();
    }
  }

  async attempt() {
    this.sent = false;
    const connection = await this.prepare();
    this.sent = true;
    const { op, fields } = this.request;
    const leftMs = this.leftMs;
    const timeoutMs = Math.min(leftMs, ATTEMPT_MS_MAX);
    return connection.request(op, fields(this.ticket), { deadlineMs: leftMs, timeoutMs });
  }

  /** All that comes before sending. Whatever fails here, the request was not applied. */
  async prepare() {
    try {
      return await before(this.deadline, this.findConnection());
    } catch (problem) {
      const late = problem.status === "DEADLINE" && this.router.trouble !== null;
      if (!(problem instanceof Problem) || (problem.outcome === "not applied" && !late)) {
        throw problem;
      }
      const cause = late ? this.router.trouble : problem;
      throw new Problem("UNAVAILABLE", `nothing was sent: ${cause.message}`);
    }
  }

  async findConnection() {
    const { router, request } = this;
    this.address = null;
    if (request.key !== undefined || request.shard !== undefined) {
      await this.place(await router.shardMap());
    } else {
      this.address = request.node ?? router.anybody(this.avoid);
    }
    return router.connection(this.address, this.leftMs);
  }

  async place(map) {
    const { router, request } = this;
    this.row = request.key === undefined ? map.shard(request.shard) : map.shardOf(request.key);
    if (request.write) {
      await this.takeTicket();
    }
    const who = request.stale ? "holderOf" : "leaderOf";
    this.address = router[who](this.row, this.avoid);
  }

  /**
   * A write in doubt keeps its session and sequence, even when a split has moved the key: the
   * new shard has a copy of the session. Any other write uses a session of the key's shard.
   */
  async takeTicket() {
    const shard = this.row.number;
    if (this.ticket !== null && (this.inDoubt || this.ticket.session.shard === shard)) {
      return;
    }
    this.ticket?.settle();
    this.ticket = null;
    const ticket = await this.sessions.ticket(shard);
    if (this.finished) {
      ticket.settle(); // too late
    } else {
      this.ticket = ticket;
    }
  }

  /** What a failed attempt means: returns to try again, or throws what to tell. */
  async judge(problem) {
    const { status } = problem;
    if (status === "SESSION_EXPIRED" && this.inDoubt) {
      throw inDoubt(`an earlier attempt may have been applied: ${problem.message}`, problem);
    }
    if (this.request.write && problem.outcome === "unknown") {
      this.inDoubt = true;
    }
    if ((this.sent && ANSWERS.has(status)) || problem.outcome === "applied") {
      throw problem;
    }
    const verdict = this.verdict(problem);
    if (!TRANSIENT.has(status)) {
      throw verdict;
    }
    if (this.leftMs > 0 && (await this.mend(problem))) {
      await this.pause();
    }
    if (this.leftMs <= 0) {
      throw verdict;
    }
  }

  /** What to tell if this attempt was the last. */
  verdict(problem) {
    if (this.inDoubt && problem.outcome !== "unknown") {
      return inDoubt(`an earlier attempt may have been applied: ${problem.message}`, problem);
    }
    if (!this.request.write && problem.status === "UNKNOWN") {
      return new Problem("DEADLINE", problem.message); // reading is never in doubt
    }
    return problem;
  }

  /** Puts right what the error says is wrong. Resolves with whether to pause, too. */
  async mend(problem) {
    const { router } = this;
    switch (problem.status) {
      case "SESSION_EXPIRED":
        await this.leaveSession();
        return false;
      case "NOT_LEADER":
        this.avoid = null;
        if (this.row !== null && router.learnLeader(this.row, problem.detail)) {
          return false;
        }
        break;
      case "WRONG_SHARD":
        return !(await before(this.deadline, router.refresh()));
      case "BUSY":
      case "DEADLINE":
        return true;
      default:
        this.avoid = this.address;
    }
    if (this.row !== null) {
      router.refresh(); // which the map's own fetch must not wait for: it would be itself
    }
    return true;
  }

  /** The shard has forgotten the session: the next attempt takes a place in another. */
  async leaveSession() {
    const { ticket } = this;
    if (ticket !== null) {
      this.ticket = null;
      ticket.settle();
      await this.sessions.expire(ticket.session);
    }
  }

  /** Longer each time, and not the same for all who failed together. */
  async pause() {
    const longest = Math.min(PAUSE_MS_MAX, PAUSE_FIRST_MS * 2 ** this.pauses++);
    const ms = Math.min(longest * (0.5 + Math.random() / 2), Math.max(0, this.leftMs));
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}

/** What the promise gives, if it gives it in time. */
function before(deadline, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    const giveUp = () => reject(new Problem("DEADLINE", "the time was over before it was sent"));
    timer = setTimeout(giveUp, Math.max(0, deadline - Date.now()));
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
