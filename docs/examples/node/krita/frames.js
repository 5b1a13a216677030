// Frames: a length of four bytes, big-endian, and as many bytes of payload.

import { Problem } from "./errors.js";

export const MAGIC = Buffer.from("\0KRITA\x01\n", "latin1");
export const FRAME_BYTES_MAX_HELLO = 4096;

export function frame(payload) {
  const bytes = Buffer.allocUnsafe(4 + payload.length);
  bytes.writeUInt32BE(payload.length);
  payload.copy(bytes, 4);
  return bytes;
}

/** Takes bytes as they come and gives whole payloads. */
export class FrameBuffer {
  constructor(frameBytesMax = FRAME_BYTES_MAX_HELLO) {
    this.frameBytesMax = frameBytesMax;
    this.chunks = [];
    this.size = 0;
  }

  add(chunk) {
    this.chunks.push(chunk);
    this.size += chunk.length;
  }

  /**
   * The next payload, or null until more has come. Throws BAD_REQUEST as soon as a
   * length is there that is 0 or over the limit. One at a time: the welcome, which may
   * arrive together with what follows it, changes the limit.
   */
  next() {
    if (this.size < 4) {
      return null;
    }
    const length = this.peek(4).readUInt32BE();
    if (length === 0) {
      throw new Problem("BAD_REQUEST", "an empty frame");
    }
    if (length > this.frameBytesMax) {
      const most = this.frameBytesMax;
      throw new Problem("BAD_REQUEST", `a frame of ${length} bytes is over the limit of ${most}`);
    }
    if (this.size < 4 + length) {
      return null;
    }
    const whole = this.peek(this.size);
    this.chunks = whole.length > 4 + length ? [whole.subarray(4 + length)] : [];
    this.size -= 4 + length;
    return whole.subarray(4, 4 + length);
  }

  /** At least the first `length` bytes in one piece. */
  peek(length) {
    if (this.chunks[0].length < length) {
      this.chunks = [Buffer.concat(this.chunks)];
    }
    return this.chunks[0];
  }
}
