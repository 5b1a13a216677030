// An acceptor's half of the protocol, as far as the vectors of what is refused ask for it:
// a client needs none of this.

import { decode } from "../krita/cbor.js";
import { Problem } from "../krita/errors.js";
import { FrameBuffer } from "../krita/frames.js";

const VERSION = 1;
const [CLIENT, PEER] = [0, 1];
const FRAME_BYTES_MAX = 1_048_576 + 4096 + 65_536;

/** Reads what follows the handshake of a client; throws at what must be refused. */
export function readRequests(bytes) {
  const buffer = new FrameBuffer(FRAME_BYTES_MAX);
  buffer.add(bytes);
  for (let payload; (payload = buffer.next()) !== null; ) {
    checkRequest(decode(payload));
  }
}

function checkRequest(item) {
  demand(Array.isArray(item) && item.length >= 3, "a request is [id, op, body]");
  const [id, op, body, deadlineMs = null, flags = null] = item;
  demand(isUint(id) && id > 0, `a client's request has the id ${id}`);
  demand(isUint(op), "an op is a number");
  demand(Buffer.isBuffer(body), "a body is a byte string");
  demand(deadlineMs === null || isUint(deadlineMs), "a deadline is a time that is left");
  demand(flags === null || isUint(flags), "flags are a number");
}

/** Reads a hello; throws at what must be refused. */
export function readHello(payload) {
  const item = decode(payload);
  demand(Array.isArray(item) && item.length >= 5, "a hello is an array");
  const [lowest, highest, features, role, lane, identity = null, token = null, nonce = null] = item;
  demand([lowest, highest, features, role].every(isUint) && typeof lane === "string", "malformed");
  demand(token === null || Buffer.isBuffer(token), "a token is a byte string");
  demand(nonce === null || isBytes(nonce, 16), "a nonce has 16 bytes");
  demand(lowest <= VERSION && VERSION <= highest, "no version in common", "UNSUPPORTED");
  demand(role === CLIENT || role === PEER, `role ${role}`, "UNSUPPORTED");
  demand(identity === null || isIdentity(identity), "an identity is five things");
  demand(role === CLIENT || (identity !== null && nonce !== null), "a peer has to prove itself");
}

function isIdentity(item) {
  const [clusterId, node, storeUuid, boots, address] = Array.isArray(item) ? item : [];
  const joining = Buffer.isBuffer(clusterId) && clusterId.length === 0;
  return (
    (joining || isBytes(clusterId, 16)) &&
    isBytes(storeUuid, 16) &&
    [node, boots].every(isUint) &&
    typeof address === "string"
  );
}

function isBytes(item, length) {
  return Buffer.isBuffer(item) && item.length === length;
}

function isUint(item) {
  return (typeof item === "number" || typeof item === "bigint") && item >= 0;
}

function demand(holds, what, status = "BAD_REQUEST") {
  if (!holds) {
    throw new Problem(status, what);
  }
}
