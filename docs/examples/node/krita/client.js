// The client: get, put, delete, ping.
//
//   const db = new Client("127.0.0.1:8080,127.0.0.1:8081");
//   await db.put("user:1", "Ada");
//   const value = await db.get("user:1");
//   console.log(value.text(), value.revision);
//   db.close();
//
// Calls may overlap: they share one connection to each leader. Every call takes at most its
// `timeoutMs`. Within it, whatever cannot have had an effect is tried again, and so is a
// write whose answer was lost, which its session makes happen once. What is thrown is a
// Problem; its `outcome` says what became of the request.

import { Call } from "./call.js";
import { Problem } from "./errors.js";
import { Router } from "./router.js";
import { Sessions } from "./sessions.js";

export const OP = { get: 1, put: 2, delete: 3, sessionOpen: 4, ping: 16, shardMap: 17 };

const KEY_BYTES_MAX = 4096;
const LINEARIZABLE = 0;
const STALE = 1;

export class Client {
  /** `nodes`: any of the cluster's, "host:port,host:port"; the others are found. */
  constructor(nodes = "127.0.0.1:8080", { token = null, timeoutMs = 5000 } = {}) {
    const seeds = nodes.split(",").map((node) => node.trim());
    const secret = token === null ? null : Buffer.from(token);
    this.timeoutMs = timeoutMs;
    this.router = new Router(seeds, secret, () => this.run({ op: OP.shardMap, fields: () => [] }));
    this.sessions = new Sessions((shard) => this.openSession(shard));
  }

  /** {data, revision, contentType, shardRevision, stalenessMs, text()}, or null if absent. */
  async get(key, { stale = false, timeoutMs } = {}) {
    const name = keyBytes(key);
    const fields = () => [name, stale ? STALE : LINEARIZABLE];
    const reply = await this.run({ op: OP.get, key: name, stale, fields }, timeoutMs);
    const [data, revision, contentType = null, shardRevision = null, stalenessMs] = reply;
    if (data === null) {
      return null;
    }
    const text = () => data.toString("utf8");
    return { data, revision, contentType, shardRevision, stalenessMs: stalenessMs ?? 0, text };
  }

  /**
   * Sets the key: {revision, existed}. It is on the disks of a majority then. `ifRevision`:
   * only if the key is at this revision; 0 asks that it be absent.
   */
  async put(key, value, { contentType = null, ifRevision = null, timeoutMs } = {}) {
    const [name, data] = [keyBytes(key), Buffer.from(value)];
    const fields = (ticket) => [...places(ticket), name, data, contentType, ifRevision];
    return change(await this.run({ op: OP.put, key: name, write: true, fields }, timeoutMs));
  }

  /** Removes the key: {revision, existed}. */
  async delete(key, { ifRevision = null, timeoutMs } = {}) {
    const name = keyBytes(key);
    const fields = (ticket) => [...places(ticket), name, ifRevision];
    return change(await this.run({ op: OP.delete, key: name, write: true, fields }, timeoutMs));
  }

  /** Who a node is: `node`, an address, or any. */
  async ping({ node, timeoutMs } = {}) {
    const reply = await this.run({ op: OP.ping, node, fields: () => [] }, timeoutMs);
    const [number, clusterId, version, clockMs] = reply;
    return { node: number, clusterId: clusterId.toString("hex"), version, clockMs };
  }

  /** Ends all connections; calls that are under way fail. */
  async close() {
    await this.router.close();
  }

  async openSession(shard) {
    const [session] = await this.run({ op: OP.sessionOpen, shard, fields: () => [shard] });
    return session;
  }

  run(request, timeoutMs = this.timeoutMs) {
    return new Call(this.router, this.sessions, request, timeoutMs).run();
  }
}

function keyBytes(key) {
  const bytes = Buffer.from(key);
  if (bytes.length === 0 || bytes.length > KEY_BYTES_MAX) {
    throw new Problem("BAD_REQUEST", `a key has 1 to ${KEY_BYTES_MAX} bytes, not ${bytes.length}`);
  }
  return bytes;
}

/** The fields that every write begins with; read when it is sent, for ackedTo rises. */
function places({ session, sequence }) {
  return [session.id, sequence, session.ackedTo];
}

function change([revision, existed]) {
  return { revision, existed };
}
