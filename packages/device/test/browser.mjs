// @ts-check
/**
 * A page with the built package in a real browser with an emulated position, against a running headcount.
 *
 *   HEADCOUNT_URL=http://127.0.0.1:8080 DEVICE='{"mqtt": "ws://…", "site": …, "id": …, "secret": …}' node test/browser.mjs
 *
 * HEADCOUNT_TOKEN  of an operator, who sends commands
 * PLACES           `{"library": [52.67, -8.57], …, "outside": …}`, by the id of the zone
 * CHROMIUM         the browser's program, by default /usr/bin/chromium
 *
 * The page of the guide, guide.html with guide.js, is made by the test that runs this.
 *
 * Exit code: 0 if all checks pass. The page is served on the address of headcount, as a page of its own would be.
 */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { chromium } from "playwright-core";
import { build } from "vite";

const WAIT_MS = 60_000;
const ACCURACY_95_M = 20;
const ACCURACY_68_M = 12.3;
const PATH = "/a-device/";
const TYPES = { html: "text/html", js: "text/javascript" };

const server = process.env.HEADCOUNT_URL ?? "";
const { mqtt, ...identity } = JSON.parse(process.env.DEVICE ?? "{}");
/** @type {Record<string, [number, number]>} */
const places = JSON.parse(process.env.PLACES ?? "{}");
const [first, second] = Object.keys(places);
const account = `Basic ${btoa(`${identity.id}:${identity.secret}`)}`;
const operator = `Bearer ${process.env.HEADCOUNT_TOKEN}`;

/** @param {string} path @param {string} authorization @param {object} [body] @returns {Promise<any>} */
async function request(path, authorization, body) {
  const headers = { authorization, "content-type": "application/json" };
  const init = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const response = await fetch(server + path, { headers, ...init });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return response.json();
}

/**
 * Waits until a function gives an expected value; repeats `before`, such as a move, until then.
 *
 * @param {() => Promise<any>} read @param {unknown} expected @param {() => Promise<void>} [before]
 */
async function becomes(read, expected, before) {
  const deadline = Date.now() + WAIT_MS;
  let found;
  do {
    await before?.();
    await setTimeout(100);
    found = await read();
  } while (found !== expected && Date.now() < deadline);
  assert.equal(found, expected);
}

const isIn = (/** @type {string} */ zone) => async () => (await request("/v1/me", account)).zones.includes(zone);

/** @param {import("playwright-core").Page} page @returns {Promise<import("@headcount/device").DeviceStatus>} */
const statusOf = (page) => page.evaluate(() => Reflect.get(window, "device").status);

/** The last position that headcount received. */
const lastFix = async () =>
  (await request("/v1/me/trace", account)).lines.findLast((/** @type {any} */ line) => "acc" in line);

const folder = await mkdtemp(join(tmpdir(), "headcount-page-"));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    // the page comes from the test, which is no address of this machine
    "--disable-features=LocalNetworkAccessChecks",
  ],
});
try {
  console.log("Chromium", browser.version());
  await build({
    root: import.meta.dirname,
    base: "./",
    configFile: false,
    logLevel: "warn",
    build: {
      outDir: folder,
      emptyOutDir: true,
      target: "es2022",
      rollupOptions: { input: ["page.html", "guide.html"].map((name) => join(import.meta.dirname, name)) },
    },
  });
  const context = await browser.newContext({ permissions: ["geolocation"] });
  /** A position has the time at which it was set. A device that is too fast is not reported: repeat it. */
  const moveTo = (/** @type {string} */ place) => () => {
    const [latitude, longitude] = places[place] ?? [0, 0];
    return context.setGeolocation({ latitude, longitude, accuracy: ACCURACY_95_M });
  };
  await context.route(`${server}${PATH}**`, async (route) => {
    const name = new URL(route.request().url()).pathname.slice(PATH.length);
    const type = TYPES[/** @type {keyof TYPES} */ (name.split(".").pop())];
    await route.fulfill({ body: await readFile(join(folder, name)), contentType: type });
  });
  const page = await context.newPage();
  /** @type {string[]} */
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => console.log("page:", message.text()));
  /** @param {object} options */
  const open = (options) =>
    page.goto(`${server}${PATH}page.html?${Date.now()}#${encodeURIComponent(JSON.stringify(options))}`);

  await moveTo(first ?? "")();
  await open({ mqtt, ...identity });
  await becomes(isIn(first ?? ""), true);
  assert.equal((await lastFix()).acc, ACCURACY_68_M);
  console.log("counted over MQTT");

  const commands = `/v1/sites/${identity.site}/devices/${identity.id}/commands`;
  const { id } = await request(commands, operator, { command: "message", text: "hello" });
  await becomes(async () => (await request(`${commands}/${id}`, operator)).state, "acknowledged");
  assert.deepEqual(await page.evaluate(() => Reflect.get(window, "messages")), ["hello"]);
  const { id: report } = await request(commands, operator, { command: "report" });
  await becomes(async () => (await request(`${commands}/${report}`, operator)).state, "acknowledged");
  await becomes(async () => (await statusOf(page)).acknowledged, 2, moveTo(first ?? ""));
  console.log("obeys");

  await open(identity);
  await page.waitForFunction(() => Reflect.get(window, "device")?.status.connection === "connected");
  await page.route("**/v1/fixes", (route) => route.abort());
  await becomes(async () => (await statusOf(page)).waiting, 1, moveTo(second ?? ""));
  await page.reload();
  await page.waitForFunction(() => Reflect.get(window, "device")?.status.waiting === 1);
  await page.unroute("**/v1/fixes");
  await becomes(isIn(second ?? ""), true);
  console.log("counted over HTTP, after a reload without a network");

  await page.close();
  await context.addInitScript((text) => localStorage.setItem("headcount-device", text), JSON.stringify(identity));
  const guide = await context.newPage();
  await guide.goto(`${server}${PATH}guide.html`);
  await becomes(isIn(first ?? ""), true, moveTo(first ?? ""));
  assert.match(await guide.title(), /^Reporting/);
  await becomes(() => guide.title(), "Off site", moveTo("outside"));
  await becomes(isIn("site"), false);
  assert.deepEqual(errors, []);
  console.log("silent off site");
} finally {
  await browser.close();
  await rm(folder, { recursive: true });
}
