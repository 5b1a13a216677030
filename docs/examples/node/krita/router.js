// Which node to ask: the cluster's nodes, a connection to each, and who leads which shard.

import { Connection } from "./connection.js";
import { Problem } from "./errors.js";
import { ShardMap } from "./ring.js";

const CONNECT_MS_MAX = 1000;

export class Router {
  /** `seeds`: addresses of any nodes. `fetchMap`: asks the cluster for its shard map. */
  constructor(seeds, token, fetchMap) {
    this.seeds = seeds;
    this.token = token;
    this.fetchMap = fetchMap;
    this.map = null;
    this.fetching = null; // promise of the fetch that is under way
    this.connections = new Map(); // address -> promise of a Connection
    this.clusterId = null; // of the first node that answered
    this.turn = 0;
    this.trouble = null; // why the last connection could not be made, if it could not
    this.closed = false;
  }

  /** The map, fetched if there is none yet. */
  async shardMap() {
    if (this.map === null) {
      await this.refresh();
    }
    return this.map;
  }

  /** Fetches the map anew, once for all who ask meanwhile. Resolves with whether it is newer. */
  refresh() {
    this.fetching ??= this.fetch().finally(() => (this.fetching = null));
    return this.fetching;
  }

  async fetch() {
    const before = this.map;
    try {
      const found = new ShardMap(await this.fetchMap());
      if (before !== null) {
        if (found.version < before.version) {
          return false; // of a node that is behind
        }
        found.keepNewerLeaders(before);
      }
      this.map = found;
      return before === null || found.version > before.version;
    } catch (problem) {
      if (before === null) {
        throw problem;
      }
      return false; // the old one is better than none
    }
  }

  /** What NOT_LEADER's detail tells. Returns whether it was news. */
  learnLeader(row, detail) {
    const [node, address, term] = ["node", "address", "term"].map((name) => detail.get(name));
    const current = this.map.shard(row.number);
    return typeof address === "string" && this.map.learnLeader(current, node, address, term);
  }

  /** Where the shard's leader is, as far as it is known and not `avoid`ed, else anybody. */
  leaderOf(row, avoid) {
    const address = this.map.leaderAddress(row);
    return address !== null && address !== avoid ? address : this.anybody(avoid);
  }

  /** A node that holds the shard: good enough for a stale read. */
  holderOf(row, avoid) {
    const known = row.holders.map((node) => this.map.addresses.get(node));
    return this.next(known.filter((address) => address !== undefined), avoid);
  }

  anybody(avoid) {
    const known = this.map === null ? [] : this.map.addresses.values();
    return this.next([...new Set([...this.seeds, ...known])], avoid);
  }

  /** One after the other, so that a node that is down is not asked twice in a row. */
  next(addresses, avoid) {
    const others = addresses.filter((address) => address !== avoid);
    const choice = others.length > 0 ? others : addresses;
    return choice[this.turn++ % choice.length] ?? this.seeds[0];
  }

  /** A connection that is there, or made now. Rejects with a Problem, surely not applied. */
  connection(address, leftMs) {
    if (this.closed) {
      throw new Problem("BAD_REQUEST", "the client is closed");
    }
    let found = this.connections.get(address);
    if (found === undefined) {
      found = this.connect(address, Math.min(leftMs, CONNECT_MS_MAX));
      this.connections.set(address, found);
      this.watch(address, found);
    }
    return found;
  }

  /** Forgets a connection that could not be made, or has ended. */
  watch(address, opening) {
    const forget = () => {
      if (this.connections.get(address) === opening) {
        this.connections.delete(address);
      }
    };
    const opened = (connection) => {
      this.trouble = null;
      connection.onceEnded(forget);
    };
    const failed = (problem) => {
      this.trouble = problem;
      forget();
    };
    opening.then(opened, failed);
  }

  async connect(address, timeoutMs) {
    const connection = await Connection.open(address, { token: this.token, timeoutMs });
    const { clusterId } = connection.identity;
    this.clusterId ??= clusterId;
    if (clusterId !== this.clusterId) {
      connection.close();
      throw new Problem("FOREIGN", `${address} is a node of another cluster, ${clusterId}`);
    }
    return connection;
  }

  async close() {
    this.closed = true;
    const ending = [...this.connections.values()].map((opened) =>
      opened.then((connection) => connection.close(), () => {}),
    );
    await Promise.all(ending);
  }
}
