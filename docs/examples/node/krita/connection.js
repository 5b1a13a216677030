// One connection to one node: hello and welcome, then requests and replies in any order.

import net from "node:net";

import { decode, encode } from "./cbor.js";
import { inDoubt, Problem, problemOf } from "./errors.js";
import { frame, FrameBuffer, MAGIC } from "./frames.js";

const VERSION = 1;
const PORT_DEFAULT = 8080;
const ROLE_CLIENT = 0;
const GOODBYE = 0;

export class Connection {
  constructor(address) {
    this.address = address;
    this.identity = null; // of the node: {clusterId, node}
    this.ended = null; // why it has
    this.whenEnded = () => {};
    this.buffer = new FrameBuffer();
    this.waiting = new Map(); // id -> what waits for the reply; null: nobody any more
    this.idNext = 1;
    this.heardAt = 0;
    this.welcome = null; // what waits for the handshake
  }

  /** Connects and greets. Rejects with a Problem; nothing was asked of the node then. */
  static async open(address, { token, timeoutMs }) {
    const connection = new Connection(address);
    await connection.greet(token, timeoutMs);
    return connection;
  }

  greet(token, timeoutMs) {
    this.socket = net.connect(endpoint(this.address));
    this.socket.setNoDelay(true);
    this.socket.on("data", (chunk) => this.receive(chunk));
    this.socket.on("error", (error) => this.end(unreachable(this.address, error.message)));
    this.socket.on("close", () => this.end(unreachable(this.address, "it has hung up")));
    const hello = [VERSION, VERSION, 0, ROLE_CLIENT, "", null, token, null];
    this.socket.write(Buffer.concat([MAGIC, frame(encode(hello))]));
    return new Promise((resolve, reject) => {
      const late = () => this.end(unreachable(this.address, "no welcome in time"));
      const timer = setTimeout(late, timeoutMs);
      this.welcome = { resolve, reject, timer };
    });
  }

  /**
   * Asks, and resolves with the elements of the reply. Rejects with a Problem whose outcome
   * counts. Many may be under way at once.
   */
  request(op, fields, { deadlineMs, timeoutMs }) {
    if (this.ended) {
      return Promise.reject(unreachable(this.address, this.ended.message));
    }
    const id = this.idNext;
    const payload = encode([id, op, encode(fields), Math.max(1, Math.ceil(deadlineMs))]);
    if (payload.length > this.buffer.frameBytesMax) {
      const most = this.buffer.frameBytesMax;
      return Promise.reject(new Problem("TOO_LARGE", `a frame has at most ${most} bytes`));
    }
    this.idNext += 1;
    this.socket.write(frame(payload));
    const sentAt = Date.now();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.overdue(id, sentAt), timeoutMs);
      this.waiting.set(id, { resolve, reject, timer });
    });
  }

  /** Calls back when the connection has ended, at once if it has. */
  onceEnded(callback) {
    this.whenEnded = callback;
    if (this.ended) {
      callback();
    }
  }

  close() {
    this.end(new Problem("UNAVAILABLE", "the client was closed"));
  }

  // --- what comes -----------------------------------------------------------------

  receive(chunk) {
    this.heardAt = Date.now();
    this.buffer.add(chunk);
    try {
      for (let payload; !this.ended && (payload = this.buffer.next()) !== null; ) {
        const item = decode(payload);
        if (this.identity === null) {
          this.welcomed(item);
        } else {
          this.replied(item);
        }
      }
    } catch (problem) {
      this.end(problem);
    }
  }

  /** Instead of the welcome there may be a refusal, [status, message, hint, …]. */
  welcomed(item) {
    if (!Array.isArray(item)) {
      throw new Problem("BAD_REQUEST", `${this.address} does not speak Krita's protocol`);
    }
    const [status, version, , identity, , , frameBytesMax] = item;
    if (status !== 0) {
      throw problemOf(status, item.slice(1));
    }
    if (version !== VERSION || !Array.isArray(identity) || !(frameBytesMax > 0)) {
      throw new Problem("BAD_REQUEST", `the welcome of ${this.address} is malformed`);
    }
    this.identity = { clusterId: identity[0].toString("hex"), node: identity[1] };
    this.buffer.frameBytesMax = frameBytesMax;
    clearTimeout(this.welcome.timer);
    this.welcome.resolve();
  }

  replied(item) {
    if (!Array.isArray(item) || item.length < 3) {
      throw new Problem("BAD_REQUEST", "a reply is [id, status, body]");
    }
    const [id, status, body] = item;
    if (id === GOODBYE) {
      throw problemOf(status, body);
    }
    const waiter = this.waiting.get(id);
    if (waiter === undefined) {
      throw new Problem("BAD_REQUEST", `no request waits for a reply ${id}`);
    }
    this.waiting.delete(id);
    if (waiter === null) {
      return; // given up: too late
    }
    clearTimeout(waiter.timer);
    if (status !== 0) {
      waiter.reject(problemOf(status, body));
    } else if (Array.isArray(body)) {
      waiter.resolve(body);
    } else {
      waiter.reject(inDoubt("the body of a reply is an array"));
    }
  }

  /** No reply in time. Not a word since it was sent: the node is gone, or stopped. */
  overdue(id, sentAt) {
    if (this.heardAt < sentAt) {
      this.end(unreachable(this.address, "it has fallen silent"));
      return;
    }
    this.waiting.get(id).reject(inDoubt(`${this.address} did not answer in time`));
    this.waiting.set(id, null);
  }

  /** The end, once. Whatever has no reply yet is of unknown outcome, goodbye or not. */
  end(problem) {
    if (this.ended) {
      return;
    }
    this.ended = problem;
    this.socket.destroy();
    clearTimeout(this.welcome?.timer);
    this.welcome?.reject(problem); // of no effect behind the welcome
    for (const waiter of this.waiting.values()) {
      if (waiter !== null) {
        clearTimeout(waiter.timer);
        waiter.reject(inDoubt(`the connection was lost: ${problem.message}`, problem));
      }
    }
    this.waiting.clear();
    this.whenEnded();
  }
}

function unreachable(address, why) {
  return new Problem("UNAVAILABLE", `${address} cannot be reached: ${why}`);
}

/** "host", "host:port" and "[::1]:port" as net.connect wants it. */
function endpoint(address) {
  const found = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(address);
  if (found === null) {
    throw new Problem("BAD_REQUEST", `${address} is no HOST:PORT`);
  }
  return { host: found[1] ?? found[2], port: Number(found[3] ?? PORT_DEFAULT) };
}
