// First steps over HTTP, with the fetch of Node.js 18 and newer (or of a browser):
//
//   node docs/examples/http/first_steps.mjs [http://127.0.0.1:8080]
//
// KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.

const base = process.argv[2] ?? "http://127.0.0.1:8080";
const token = process.env.KRITA_ADMIN_TOKEN;
const TRIES = 5;

/**
 * One request; statuses in `expected` are the caller's to look at. 503 is always "not
 * applied", so it is tried again; whatever else there is, its body says.
 */
async function request(method, key, expected, { body, headers = {} } = {}) {
  const url = `${base}/v1/kv/${encodeURIComponent(key)}`;
  const all = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  for (let tries = 1; ; tries++) {
    const answer = await fetch(url, { method, body, headers: all });
    if (expected.includes(answer.status)) {
      return answer;
    }
    if (answer.status !== 503 || tries === TRIES) {
      throw new Error(`${method} ${key}: ${answer.status} ${await answer.text()}`);
    }
    const seconds = Number(answer.headers.get("Retry-After") ?? 1);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

async function firstSteps() {
  const key = "example:greeting";
  const headers = { "Content-Type": "text/plain" };
  const put = await request("PUT", key, [200, 201], { body: "hello", headers });
  const value = await request("GET", key, [200]);
  console.log(`${key} is ${await value.text()}`);

  // Only what has been read is replaced: whoever was faster wins.
  const condition = { "If-Match": put.headers.get("ETag") };
  await request("PUT", key, [200], { body: "hello again", headers: condition });
  const late = await request("PUT", key, [412], { body: "too late", headers: condition });
  const { message, outcome } = await late.json();
  console.log(`refused, ${outcome.replace(" ", "_")}: ${message}`);

  await request("DELETE", key, [204]);
  await request("GET", key, [404]);
  console.log(`${key} is None`);
}

/** Adds to a number that others add to as well. */
async function add(key, amount) {
  for (;;) {
    const found = await request("GET", key, [200, 404]);
    const absent = found.status === 404;
    const number = absent ? 0 : Number(await found.text());
    const headers = absent ? { "If-None-Match": "*" } : { "If-Match": found.headers.get("ETag") };
    const body = String(number + amount);
    const answer = await request("PUT", key, [200, 201, 412], { body, headers });
    if (answer.status !== 412) {
      return; // else somebody was faster: look again
    }
  }
}

await firstSteps();
const visits = "example:visits";
await request("DELETE", visits, [204]);
await Promise.all(Array.from({ length: 10 }, () => add(visits, 1)));
console.log(`${await (await request("GET", visits, [200])).text()} visits`);
