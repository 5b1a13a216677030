// Runs the vectors of the specification: node test/vectors.js ../../../protocol/vectors
//
// Prints how many hold, and each that does not; exits with 1 if there is one.

import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { decode, encode } from "../krita/cbor.js";
import { Problem, problemOf } from "../krita/errors.js";
import { ShardMap, tagOf, tokenOf } from "../krita/ring.js";
import { readHello, readRequests } from "./acceptor.js";
import { diagnose } from "./notation.js";

const folder = process.argv[2];
const failures = [];
let count = 0;

function check(name, judge) {
  count += 1;
  try {
    const wrong = judge();
    if (wrong) {
      failures.push(`${name}: ${wrong}`);
    }
  } catch (error) {
    failures.push(`${name}: ${error.stack}`);
  }
}

function load(file) {
  return JSON.parse(readFileSync(join(folder, file), "utf8")).vectors;
}

function differs(what, found, expected) {
  return found === expected ? "" : `${what} is ${found} instead of ${expected}`;
}

function hexOf(bytes) {
  return Buffer.from(bytes).toString("hex");
}

function bytesOf(hex) {
  return Buffer.from(hex, "hex");
}

// --- what is well formed -----------------------------------------------------------

function judgeGood({ hex, diag, cddl }) {
  const item = decode(bytesOf(hex));
  const isError = cddl === "reply_error" || cddl === "goodbye";
  return (
    differs("its notation", diagnose(item), diag) ||
    differs("encoded, it", hexOf(encode(item)), hex) ||
    (isError ? differs("its message", problemOf(item[1], item[2]).message, item[2][0]) : "")
  );
}

for (const file of ["handshake.json", "messages.json", "operations.json"]) {
  for (const vector of load(file)) {
    check(`${file}: ${vector.name}`, () => judgeGood(vector));
  }
}

check("the shard map is one", () => {
  const { hex } = load("operations.json").find(({ name }) => name === "shard_map reply");
  return new ShardMap(decode(bytesOf(hex))).arcs.length > 0 ? "" : "no arcs";
});

// --- what is refused ---------------------------------------------------------------

const readers = {
  item: decode,
  stream: readRequests,
  hello: readHello,
  shard_map: (bytes) => new ShardMap(decode(bytes)),
};

for (const { name, hex, read_as: readAs, error } of load("refused.json")) {
  check(`refused.json: ${name}`, () => {
    try {
      readers[readAs](bytesOf(hex));
    } catch (problem) {
      if (problem instanceof Problem) {
        return differs("the status", problem.status, error);
      }
      throw problem;
    }
    return "was taken";
  });
}

// --- where a key lives, and how peers prove themselves -----------------------------------

for (const { key, tag, token, shard_of_16: shard } of load("ring.json")) {
  check(`ring.json: ${key}`, () => {
    const width = 2 ** 32 / 16;
    const arc = (_, at) => [at + 1, at * width, (at + 1) * width, 0, 0, []];
    const rows = Array.from({ length: 16 }, arc);
    const map = new ShardMap([1, rows, []]);
    return (
      differs("the tag", hexOf(tagOf(bytesOf(key))), tag) ||
      differs("the token", tokenOf(bytesOf(key)), token) ||
      differs("the shard", map.shardOf(bytesOf(key)).number, shard)
    );
  });
}

const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts)).digest();
const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

for (const vector of load("proofs.json")) {
  check(`proofs.json: ${vector.name}`, () => {
    const raw = (name) => bytesOf(vector[name]);
    const key = hmac(raw("admin_token"), Buffer.from("krita peer key v1"));
    if (vector.hello === undefined) {
      return differs("the key", hexOf(key), vector.peer_key);
    }
    const nonces = [raw("hello_nonce"), raw("welcome_nonce")];
    const label = Buffer.from("krita acceptor");
    const acceptor = hmac(key, label, sha256(raw("hello")), ...nonces, raw("identity"));
    const hashes = [sha256(raw("hello")), sha256(raw("welcome"))];
    const dialer = hmac(key, Buffer.from("krita dialer"), ...hashes);
    return (
      differs("the key", hexOf(key), vector.peer_key) ||
      differs("the acceptor's proof", hexOf(acceptor), vector.acceptor_proof) ||
      differs("the dialer's proof", hexOf(dialer), vector.dialer_proof)
    );
  });
}

console.log(`${count - failures.length} of ${count} hold`);
for (const failure of failures) {
  console.log(failure);
}
process.exitCode = failures.length > 0 ? 1 : 0;
