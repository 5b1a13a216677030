// What a program imports.

export { Client } from "./client.js";
export { Problem } from "./errors.js";
