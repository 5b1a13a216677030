// Reads items in hex, one a line, and says of each what it is in diagnostic notation, or
// "refused": for comparing this decoder with another.

import { createInterface } from "node:readline";

import { decode } from "../krita/cbor.js";
import { Problem } from "../krita/errors.js";
import { diagnose } from "./notation.js";

for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(diagnose(decode(Buffer.from(line, "hex"))));
  } catch (problem) {
    if (!(problem instanceof Problem)) {
      throw problem;
    }
    console.log("refused");
  }
}
