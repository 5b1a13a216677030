// CBOR (RFC 8949) as Krita's protocol has it: exactly one item, strictly read.
//
// What stands for what:
//   integer       number, or BigInt where a number would not be exact
//   byte string   Buffer (a view of the bytes that were decoded; no copy)
//   text          string
//   array, map    Array, Map; a map's keys are strings and Buffers
//   false, true, null, float
//
// A float is decoded to a number, so a whole one (2.0) would be encoded as an
// integer. Floats stand in status documents only, which clients never send.

import { Problem } from "./errors.js";

const DEPTH_MAX = 16; // arrays and maps in each other
const ITEMS_MAX = 1_048_576; // in all, keys and values counted

const UNSIGNED = 0;
const NEGATIVE = 1;
const BYTES = 2;
const TEXT = 3;
const ARRAY = 4;
const MAP = 5;
const TAG = 6;

const FALSE = 20;
const TRUE = 21;
const NULL = 22;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LONE_SURROGATE = /\p{Surrogate}/u;

/** The one item that `data` is. Throws a BAD_REQUEST for anything else. */
export function decode(data) {
  const reader = new Reader(data);
  const item = reader.item(0);
  if (reader.at !== data.length) {
    throw malformed(`${data.length - reader.at} bytes are left over behind the item`);
  }
  return item;
}

/** The item's bytes, integers and lengths in their shortest form. */
export function encode(item) {
  const parts = [];
  write(item, parts);
  return Buffer.concat(parts);
}

function malformed(what) {
  return new Problem("BAD_REQUEST", `not CBOR by the rules of the protocol: ${what}`);
}

class Reader {
  constructor(data) {
    this.data = data;
    this.at = 0;
    this.items = 0;
  }

  item(depth) {
    if (++this.items > ITEMS_MAX) {
      throw malformed(`more than ${ITEMS_MAX} items`);
    }
    const head = this.take(1)[0];
    const major = head >> 5;
    const info = head & 31;
    if (major === TAG) {
      throw malformed("tags are not allowed");
    }
    if (major > TAG) {
      return this.simple(info);
    }
    const argument = this.argument(info);
    switch (major) {
      case UNSIGNED:
        return argument;
      case NEGATIVE:
        return plain(-1n - BigInt(argument));
      case BYTES:
        return this.take(argument);
      case TEXT:
        return this.text(argument);
      case ARRAY:
        return this.array(argument, depth + 1);
      default:
        return this.map(argument, depth + 1);
    }
  }

  /** The next bytes. A length is checked before anything is made of it. */
  take(length) {
    if (length > this.data.length - this.at) {
      throw malformed("the bytes end within an item");
    }
    const from = this.at;
    this.at += length;
    return this.data.subarray(from, this.at);
  }

  argument(info) {
    if (info < 24) {
      return info;
    }
    switch (info) {
      case 24:
        return this.take(1)[0];
      case 25:
        return this.take(2).readUInt16BE();
      case 26:
        return this.take(4).readUInt32BE();
      case 27:
        return plain(this.take(8).readBigUInt64BE());
      case 31:
        throw malformed("indefinite lengths are not allowed");
      default:
        throw malformed(`additional information ${info} is reserved`);
    }
  }

  text(length) {
    try {
      return utf8.decode(this.take(length));
    } catch (error) {
      if (error instanceof Problem) {
        throw error;
      }
      throw malformed("a text is no UTF-8");
    }
  }

  array(length, depth) {
    this.enter(length, depth);
    const items = []; // grown as items come: what a length claims is not allocated
    for (let left = length; left > 0; left--) {
      items.push(this.item(depth));
    }
    return items;
  }

  map(length, depth) {
    this.enter(length, depth);
    const found = new Map();
    const known = new Set(); // two Buffers are never the same to a Map
    for (let left = length; left > 0; left--) {
      const key = this.item(depth);
      if (typeof key !== "string" && !Buffer.isBuffer(key)) {
        throw malformed("a map key is neither text nor a byte string");
      }
      const name = typeof key === "string" ? `t${key}` : `b${key.toString("hex")}`;
      if (known.has(name)) {
        throw malformed("a map has the same key twice");
      }
      known.add(name);
      found.set(key, this.item(depth));
    }
    return found;
  }

  /** An array or map may begin: each of its items takes a byte at least. */
  enter(length, depth) {
    if (depth > DEPTH_MAX) {
      throw malformed(`arrays and maps are more than ${DEPTH_MAX} deep`);
    }
    if (length > this.data.length - this.at) {
      throw malformed("the bytes end within an item");
    }
  }

  simple(info) {
    switch (info) {
      case FALSE:
        return false;
      case TRUE:
        return true;
      case NULL:
        return null;
      case 25:
        return half(this.take(2).readUInt16BE());
      case 26:
        return this.take(4).readFloatBE();
      case 27:
        return this.take(8).readDoubleBE();
      case 31:
        throw malformed("a break without anything to end");
      default:
        throw malformed(`simple value ${info} is not used`);
    }
  }
}

/** A number if it is one exactly, else the BigInt. */
function plain(big) {
  const number = Number(big);
  return Number.isSafeInteger(number) ? number : big;
}

/** IEEE 754 binary16 (RFC 8949, appendix D). */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 31) {
    return fraction ? NaN : sign * Infinity;
  }
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction;
}

function write(item, parts) {
  if (item === null || item === undefined) {
    parts.push(Buffer.of(0xf6));
  } else if (typeof item === "boolean") {
    parts.push(Buffer.of(item ? 0xf5 : 0xf4));
  } else if (typeof item === "bigint" || Number.isSafeInteger(item)) {
    writeInteger(BigInt(item), parts);
  } else if (typeof item === "number") {
    const bytes = Buffer.alloc(9, 0xfb);
    bytes.writeDoubleBE(item, 1);
    parts.push(bytes);
  } else if (typeof item === "string") {
    if (LONE_SURROGATE.test(item)) {
      throw new TypeError("a string with half a surrogate pair is no text");
    }
    const bytes = Buffer.from(item, "utf8");
    parts.push(head(TEXT, bytes.length), bytes);
  } else if (item instanceof Uint8Array) {
    parts.push(head(BYTES, item.length), item);
  } else {
    writeMany(item, parts);
  }
}

function writeMany(item, parts) {
  if (Array.isArray(item)) {
    parts.push(head(ARRAY, item.length));
    for (const element of item) {
      write(element, parts);
    }
  } else if (item instanceof Map) {
    parts.push(head(MAP, item.size));
    for (const [key, value] of item) {
      write(key, parts);
      write(value, parts);
    }
  } else {
    throw new TypeError(`there is no CBOR for ${typeof item} here`);
  }
}

function writeInteger(value, parts) {
  const argument = value < 0n ? -1n - value : value;
  if (argument > U64_MAX) {
    throw new RangeError(`${value} has more than 64 bits`);
  }
  parts.push(head(value < 0n ? NEGATIVE : UNSIGNED, argument));
}

/** A head in its shortest form. */
function head(major, argument) {
  const first = major << 5;
  if (argument < 24) {
    return Buffer.of(first | Number(argument));
  }
  if (argument <= 0xff) {
    return Buffer.of(first | 24, Number(argument));
  }
  const wide = argument > 0xffff_ffff;
  const bytes = Buffer.alloc(wide ? 9 : argument > 0xffff ? 5 : 3);
  if (wide) {
    bytes[0] = first | 27;
    bytes.writeBigUInt64BE(BigInt(argument), 1);
  } else if (argument > 0xffff) {
    bytes[0] = first | 26;
    bytes.writeUInt32BE(Number(argument), 1);
  } else {
    bytes[0] = first | 25;
    bytes.writeUInt16BE(Number(argument), 1);
  }
  return bytes;
}
