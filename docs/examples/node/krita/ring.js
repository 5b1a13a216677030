// Where a key lives: its tag, its token, and the shard whose arc holds the token.

import { Problem } from "./errors.js";

const RING_SIZE = 2 ** 32;
const META_SHARD = 0;
const OPEN = "{".charCodeAt(0);
const CLOSE = "}".charCodeAt(0);

/** What places the key: the text between the first "{" and the next "}", or all of it. */
export function tagOf(key) {
  const start = key.indexOf(OPEN);
  const stop = start < 0 ? -1 : key.indexOf(CLOSE, start + 1);
  return stop > start + 1 ? key.subarray(start + 1, stop) : key;
}

export function tokenOf(key) {
  return crc32(tagOf(key));
}

// The CRC of zlib, gzip and PNG, byte by byte (zlib.crc32 is younger than Node 18).
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) {
    crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return crc;
});

export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/**
 * The reply of shard_map, with what was learnt since of who leads.
 * Invariant: the arcs cover the ring without gap or overlap.
 */
export class ShardMap {
  /** Throws BAD_REQUEST for anything that is no map. */
  constructor(item) {
    const whole = Array.isArray(item) && Array.isArray(item[1]) && Array.isArray(item[2]);
    if (!whole || ![...item[1], ...item[2]].every(Array.isArray)) {
      throw new Problem("BAD_REQUEST", "a shard map is [version, shards, nodes]");
    }
    this.version = item[0];
    const rows = item[1].map(([number, lo, hi, leader, term, holders]) => {
      return { number, lo, hi, leader, term, holders };
    });
    this.arcs = rows.filter((row) => row.number !== META_SHARD).sort((a, b) => a.lo - b.lo);
    this.addresses = new Map(item[2].map(([node, address]) => [node, address]));
    this.checkCover();
  }

  checkCover() {
    let position = 0;
    for (const { number, lo, hi } of this.arcs) {
      if (lo !== position || hi <= lo) {
        const fault = lo > position ? "leaves a gap in" : "overlaps another on";
        throw new Problem("BAD_REQUEST", `shard ${number} ${fault} the ring at ${position}`);
      }
      position = hi;
    }
    if (position !== RING_SIZE) {
      throw new Problem("BAD_REQUEST", `the shards end at ${position}, not with the ring`);
    }
  }

  /** The row of the shard that owns the key. */
  shardOf(key) {
    const token = tokenOf(key);
    let low = 0;
    let high = this.arcs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.arcs[middle].lo <= token) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return this.arcs[low];
  }

  /** The row of a shard by its number. */
  shard(number) {
    const found = this.arcs.find((row) => row.number === number);
    if (found === undefined) {
      throw new Problem("WRONG_SHARD", `shard ${number} is not in the map`);
    }
    return found;
  }

  leaderAddress(row) {
    return this.addresses.get(row.leader) ?? null;
  }

  /** Whether this was news: knowledge of a leader with a higher term is newer. */
  learnLeader(row, node, address, term) {
    if (typeof term !== "number" || term <= row.term) {
      return false;
    }
    row.leader = node;
    row.term = term;
    this.addresses.set(node, address);
    return true;
  }

  /** A newer map does not know less of a leader than this one does. */
  keepNewerLeaders(old) {
    const known = new Map(old.arcs.map((row) => [row.number, row]));
    for (const row of this.arcs) {
      const before = known.get(row.number);
      if (before !== undefined && before.term > row.term) {
        row.leader = before.leader;
        row.term = before.term;
      }
    }
  }
}
