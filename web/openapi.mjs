// @ts-check
/**
 * Write src/openapi.ts: TypeScript types of the API paths that the pages use.
 *
 *   make web-types
 *   python docs/generate.py --openapi | node openapi.mjs [--check]
 *
 * Reads the OpenAPI document from standard input. With --check, it writes nothing and fails if the file is out of date.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import openapiTS, { astToString } from "openapi-typescript";

const FILE = new URL("src/openapi.ts", import.meta.url);
const HEADER = "/** Types of the HTTP API, written by `make web-types` from its OpenAPI document. Do not edit. */\n\n";
const PATHS = [
  "/v1/sites",
  "/v1/sites/{site}",
  "/v1/sites/{site}/counts",
  "/v1/sites/{site}/zones/{zone}/history",
  "/v1/whoami",
  "/v1/me",
  "/v1/me/trace",
  "/v1/me/pause",
  "/v1/me/resume",
  "/v1/provision",
];
/** Texts and names of functions: they change more often than the types. */
const TEXTS = new Set(["summary", "description", "title", "example", "examples", "operationId"]);

/** @typedef {Record<string, any>} Json */

/** The schemas that `part` refers to, directly or through other schemas. @param {unknown} part @param {Json} schemas */
function referenced(part, schemas, found = /** @type {Json} */ ({})) {
  for (const [, name] of JSON.stringify(part).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
    if (name === undefined || name in found) continue;
    found[name] = schemas[name];
    referenced(schemas[name], schemas, found);
  }
  return found;
}

/** The part of the document that the pages use: their paths with the successful responses. @param {Json} document */
function used(document) {
  /** @type {Json} */
  const paths = {};
  for (const path of PATHS) {
    for (const [method, operation] of Object.entries(/** @type {Json} */ (document.paths[path]))) {
      const responses = Object.entries(operation.responses).filter(([status]) => status.startsWith("2"));
      paths[path] = { ...paths[path], [method]: { ...operation, responses: Object.fromEntries(responses) } };
    }
  }
  const { openapi, info } = document;
  return { openapi, info, paths, components: { schemas: referenced(paths, document.components.schemas) } };
}

const isText = (/** @type {string} */ key, /** @type {unknown} */ value) =>
  TEXTS.has(key) && (typeof value === "string" || key.startsWith("example"));
const document = JSON.parse(await text(process.stdin), (key, value) => (isText(key, value) ? undefined : value));
const types = HEADER + astToString(await openapiTS(used(document), { alphabetize: true, defaultNonNullable: false }));
if (!process.argv.includes("--check")) writeFileSync(FILE, types);
else if (readFileSync(FILE, "utf8") !== types) {
  console.error("web/src/openapi.ts is out of date. Run: make web-types");
  process.exitCode = 1;
}
