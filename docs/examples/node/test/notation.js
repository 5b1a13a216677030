// CBOR's diagnostic notation (RFC 8949 §8), as the vectors have it.

export function diagnose(item) {
  if (item instanceof Uint8Array) {
    return `h'${Buffer.from(item).toString("hex")}'`;
  }
  if (Array.isArray(item)) {
    return `[${item.map(diagnose).join(", ")}]`;
  }
  if (item instanceof Map) {
    const pairs = [...item].map(([key, value]) => `${diagnose(key)}: ${diagnose(value)}`);
    return `{${pairs.join(", ")}}`;
  }
  return typeof item === "bigint" ? item.toString() : JSON.stringify(item);
}
