// @ts-check
/** Prints what the package adds to a page, in KB after gzip: with HTTP alone, and with MQTT. */
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const ROOT = join(import.meta.dirname, "..");
const HTTP = `
  export { Device, HttpTransport } from "@headcount/device";
  export { IndexedDbStorage, watchGeolocation } from "@headcount/device/browser";
`;
const ENTRIES = { http: HTTP, mqtt: `${HTTP} export { MqttTransport } from "@headcount/device/mqtt";` };

const folder = await mkdtemp(join(ROOT, "node_modules", ".size-"));
try {
  /** @type {Record<string, number>} */
  const sizes = {};
  for (const [name, code] of Object.entries(ENTRIES)) {
    const entry = join(folder, `${name}.js`);
    writeFileSync(entry, code);
    const built = await build({
      root: ROOT,
      configFile: false,
      logLevel: "silent",
      build: {
        write: false,
        target: "es2022",
        minify: true,
        rollupOptions: { input: entry, preserveEntrySignatures: "strict" },
      },
    });
    const chunks = "output" in built ? built.output : [];
    const text = chunks.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
    sizes[name] = Math.round(gzipSync(text, { level: 9 }).length / 100) / 10;
  }
  console.log(JSON.stringify(sizes));
} finally {
  await rm(folder, { recursive: true });
}
