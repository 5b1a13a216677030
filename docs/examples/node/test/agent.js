// Does what a test tells it on standard input, a JSON document a line, with one client:
//
//   node test/agent.js NODES        with KRITA_TOKEN in the environment, if any
//   {"id": 1, "call": "put", "arguments": ["k", "v", {"ifRevision": 0}]}
//   -> {"id": 1, "result": {"revision": 7, "existed": false}}
//   -> {"id": 1, "problem": {"status": "CONDITION_FAILED", "outcome": "not applied", …}}
//
// Requests are carried out side by side, so answers come in any order. Bytes that are no
// text are written {"hex": "00ff"} both ways.

import { createInterface } from "node:readline";

import { Client, Problem } from "../krita/index.js";

const db = new Client(process.argv[2], { token: process.env.KRITA_TOKEN ?? null });

function fromJson(value) {
  return typeof value?.hex === "string" ? Buffer.from(value.hex, "hex") : value;
}

function toJson(value) {
  if (typeof value === "bigint") {
    return value.toString();
  }
  if (Buffer.isBuffer(value)) {
    return { hex: value.toString("hex") };
  }
  if (value instanceof Map || (typeof value === "object" && value !== null)) {
    const pairs = value instanceof Map ? [...value] : Object.entries(value);
    const kept = pairs.filter(([, item]) => typeof item !== "function");
    return Object.fromEntries(kept.map(([key, item]) => [key, toJson(item)]));
  }
  return value;
}

async function carryOut({ id, call, arguments: given }) {
  try {
    const result = await db[call](...given.map(fromJson));
    return { id, result: toJson(result) };
  } catch (error) {
    if (!(error instanceof Problem)) {
      return { id, problem: { status: "BUG", message: error.stack } };
    }
    const { status, outcome, message, hint, detail } = error;
    return { id, problem: toJson({ status, outcome, message, hint, detail }) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  carryOut(JSON.parse(line)).then((answer) => console.log(JSON.stringify(answer)));
}
await db.close();
