/** The package as npm publishes it: its files, its size in a page, and its types in other projects. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

const ROOT = join(import.meta.dirname, "..");
const TSC = join(ROOT, "node_modules", ".bin", "tsc");
const folder = mkdtempSync(join(tmpdir(), "headcount-device-"));
const consumer = join(folder, "node_modules", "@headcount", "device");
let files: string[] = [];

function run(command: string, ...options: string[]): string {
  return execFileSync(command, options, { cwd: ROOT, encoding: "utf8" });
}

/** What tsc prints about a project with this source. */
function problemsOf(source: string, options: object): string {
  writeFileSync(join(folder, "program.ts"), source);
  const compilerOptions = { strict: true, skipLibCheck: false, noEmit: true, types: [], target: "es2022", ...options };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["program.ts"] }));
  try {
    return run(TSC, "--project", folder);
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

beforeAll(() => {
  const [packed] = JSON.parse(run("npm", "pack", "--json", "--silent", "--pack-destination", folder)) as {
    filename: string;
    files: { path: string }[];
  }[];
  files = packed?.files.map(({ path }) => path) ?? [];
  mkdirSync(consumer, { recursive: true });
  run("tar", "xzf", join(folder, packed?.filename ?? ""), "-C", consumer, "--strip-components=1");
  writeFileSync(join(folder, "package.json"), '{"type": "module"}');
});

afterAll(() => rmSync(folder, { recursive: true }));

test("only the built modules are published, each with its types", () => {
  const names = readdirSync(join(ROOT, "src")).filter((name) => !name.endsWith(".test.ts"));
  const built = names.flatMap((name) => [".js", ".d.ts"].map((end) => `dist/${name.replace(/\.ts$/, end)}`));
  expect([...files].sort()).toEqual(["LICENSE", "README.md", "package.json", ...built].sort());
});

test("types resolve in a program without the types of browsers and Node.js", () => {
  const source = `import { Device, HttpTransport } from "@headcount/device";
    const transport = new HttpTransport({ url: "http://x", site: "ul", kind: "person", id: "x", secret: "y" });
    export const reason: Promise<"left" | "zones" | string | undefined> =
      new Device({ transport }).report({ t: 0, lat: 1, lon: 2 });
    // @ts-expect-error: there is no such kind
    new HttpTransport({ url: "http://x", site: "ul", kind: "tree", id: "x", secret: "y" });`;
  expect(problemsOf(source, { module: "nodenext", lib: ["es2022"] })).toBe("");
});

test("types resolve in a page that a bundler builds", () => {
  symlinkSync(join(ROOT, "node_modules", "mqtt"), join(folder, "node_modules", "mqtt"));
  const source = `import { Device } from "@headcount/device";
    import { IndexedDbStorage, watchGeolocation } from "@headcount/device/browser";
    import { MqttTransport } from "@headcount/device/mqtt";
    const transport = new MqttTransport({ url: "ws://x", site: "ul", kind: "person", id: "x" });
    export const end: () => void = watchGeolocation(new Device({ transport, storage: new IndexedDbStorage("x") }));`;
  const options = { module: "esnext", moduleResolution: "bundler", lib: ["es2022", "dom"] };
  // mqtt.js has types of Node.js itself, which a project may check or not
  expect(problemsOf(source, { ...options, skipLibCheck: true })).toBe("");
});

test("a program without mqtt.js runs", () => {
  const options = [
    "--input-type=module",
    "--eval",
    'import { Device } from "@headcount/device"; console.log(Device.name)',
  ];
  expect(execFileSync("node", options, { cwd: folder, encoding: "utf8" })).toBe("Device\n");
});

test("a page becomes little larger, and much larger only with mqtt.js", () => {
  const { http, mqtt } = JSON.parse(run("node", "test/size.mjs")) as Record<string, number>;
  expect(http).toBeLessThan(7);
  expect(mqtt).toBeLessThan(110);
});
