// @ts-check
/**
 * Check an AsyncAPI document with the official parser: `node asyncapi.mjs FILE`.
 *
 * Prints the number of topics, or the errors and warnings, with exit code 1.
 */
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const file = process.argv[2] ?? "";
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
const problems = diagnostics.filter(({ severity }) => severity <= 1);
for (const { message, path } of problems) console.error(`${file}: ${path.join(".")}: ${message}`);
if (document && problems.length === 0)
  console.log(`AsyncAPI ${document.version()}: ${document.channels().length} topics`);
else process.exitCode = 1;
