// The library, from the folder that N2N_MODULES names (it is installed outside the repository), and a deadline: a
// script that is forgotten ends by itself.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.N2N_MODULES}/package.json`);
const name = "@harmoniclabs/ouroboros-miniprotocols-ts";

export const n2n = require(name);
export const { KeepAliveClient } = require(`${name}/dist/protocols/keep-alive/KeepAliveClient.js`);

export const HASH = "ab".repeat(32);

export function endAfter(seconds) {
  setTimeout(() => process.exit(3), seconds * 1000).unref();
  process.stdin.on("end", () => process.exit(0));
  process.stdin.resume();
}

export function tell(document) {
  process.stdout.write(JSON.stringify(document, (_, v) => (typeof v === "bigint" ? Number(v) : v)) + "\n");
}
