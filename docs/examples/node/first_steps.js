// A first conversation with a cluster, over the binary protocol:
//
//   node docs/examples/node/first_steps.js 127.0.0.1:8080,127.0.0.1:8081
//
// KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.

import { Client, Problem } from "./krita/index.js";

const db = new Client(process.argv[2] ?? process.env.KRITA_NODES, {
  token: process.env.KRITA_ADMIN_TOKEN ?? null,
});
try {
  const { node, version } = await db.ping();
  console.log(`node ${node} runs kritad ${version}`);

  const key = "node:greeting";
  await db.delete(key);
  const { revision } = await db.put(key, "hello", { contentType: "text/plain" });
  const value = await db.get(key);
  console.log(`${key} is ${value.text()}`);

  // Only what has been read is replaced: whoever was faster wins.
  await db.put(key, "hello again", { ifRevision: revision });
  try {
    await db.put(key, "too late", { ifRevision: revision });
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== "CONDITION_FAILED") {
      throw problem;
    }
    console.log(`refused, ${problem.outcome}: ${problem.message}`);
  }

  // A hundred at a time: they share a connection to each shard's leader.
  const numbers = Array.from({ length: 100 }, (_, number) => number);
  await Promise.all(numbers.map((number) => db.put(`node:square:${number}`, `${number ** 2}`)));
  console.log(`12 squared is ${(await db.get("node:square:12")).text()}`);
} finally {
  await db.close();
}
