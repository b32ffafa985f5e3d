// @ts-check
/**
 * The map page in a real browser against a running server.
 *
 *   HEADCOUNT_URL=http://127.0.0.1:8080/ npm run e2e
 *
 * HEADCOUNT_URL      a server whose counts change, such as a simulation
 * CHROMIUM           the browser's program, by default /usr/bin/chromium
 * HEADCOUNT_SHOTS    a folder for screenshots, by default none
 *
 * Exit code: 0 if all checks pass, 1 if one fails, 77 if there is no browser (skipped).
 * The page is served through a relay, which can be cut: for the browser that looks like a stopped server.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { chromium } from "playwright-core";
import { Relay } from "./relay.mjs";

const SKIPPED = 77;
const WAIT_MS = 60_000;
const PHONE = { width: 390, height: 844 };
const DESK = { width: 1280, height: 800 };
/** Software rendering for the map, and no requests of the browser's own. */
const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--ignore-gpu-blocklist",
];
/** The browser's own console messages about failed requests, expected while the server is gone. */
const FAILED_REQUEST = /^Failed to load resource|net::ERR_|ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE/;

const program = process.env.CHROMIUM ?? "/usr/bin/chromium";
const server = process.env.HEADCOUNT_URL;
const shots = process.env.HEADCOUNT_SHOTS;

/** @typedef {import("playwright-core").Page} Page */

/** @param {Page} page @param {string} testId */
async function numberIn(page, testId) {
  const text = (await page.getByTestId(testId).textContent()) ?? "";
  return Number(text.replaceAll(",", ""));
}

/** All counts of the list, to detect changes. @param {Page} page */
const allCounts = (page) => page.locator("#list .row-number b").allTextContents();

/** @param {Page} page @param {string} name */
async function shoot(page, name) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`) });
}

/** @param {Page} page */
const isLive = (page) => page.waitForSelector('#status[data-state="live"]', { timeout: WAIT_MS });

/** Waits until a text matches. @param {() => Promise<string | null>} read @param {RegExp} pattern */
async function becomes(read, pattern) {
  const deadline = Date.now() + WAIT_MS;
  let text = await read();
  for (; !pattern.test(text ?? "") && Date.now() < deadline; text = await read()) await setTimeout(50);
  assert.match(text ?? "", pattern);
}

/** The checks, in order; each starts with the page as the previous one left it. */
const CHECKS = {
  /** @param {Page} page */
  async "counts appear in the page and in its title"(page) {
    await isLive(page);
    await page.waitForFunction(() => document.querySelector("#total-person")?.textContent !== "–");
    assert.ok((await numberIn(page, "total-person")) >= 0);
    assert.match(await page.title(), /^[\d,]+ (person|people) · [\d,]+ vehicles? – \S/);
    assert.match((await page.locator("#range-person").textContent()) ?? "", /^[\d,]+–[\d,]+$|^exactly [\d,]+$/);
  },

  /** @param {Page} page */
  async "counts change by themselves"(page) {
    const before = JSON.stringify(await allCounts(page));
    const changed = (/** @type {string} */ old) => {
      const now = [...document.querySelectorAll("#list .row-number b")].map((cell) => cell.textContent);
      return JSON.stringify(now) !== old;
    };
    await page.waitForFunction(changed, before, { timeout: WAIT_MS });
  },

  /** @param {Page} page */
  async "the list has the busiest zone first"(page) {
    const sorted = () => {
      const busy = [...document.querySelectorAll("#list [data-busy]")].map((row) =>
        Number(row.getAttribute("data-busy")),
      );
      return busy.length > 0 && busy.every((value, i) => i === 0 || value <= /** @type {number} */ (busy[i - 1]));
    };
    // Rows are sorted every two seconds, while counts change more often: it holds at some moment.
    await page.waitForFunction(sorted, undefined, { timeout: WAIT_MS, polling: 50 });
  },

  /** @param {Page} page */
  async "the map is drawn"(page) {
    await page.waitForSelector("#map canvas", { timeout: WAIT_MS });
    assert.equal(await page.locator("#no-map").isVisible(), false);
    await page.waitForSelector(".label:not([hidden])", { timeout: WAIT_MS });
  },

  /** @param {Page} page */
  async "filters show one type of zone"(page) {
    const filters = page.getByRole("group", { name: "Show", exact: true }).getByRole("button");
    if ((await filters.count()) < 3) return;
    const all = await page.locator("#list [data-zone]").count();
    await filters.nth(1).click();
    assert.equal(await filters.nth(1).getAttribute("aria-pressed"), "true");
    const some = await page.locator("#list [data-zone]").count();
    assert.ok(some > 0 && some < all, `${some} of ${all} zones`);
    await filters.first().click();
    assert.equal(await page.locator("#list [data-zone]").count(), all);
  },

  /** @param {Page} page */
  async "the keyboard alone selects a zone and goes back"(page) {
    await page.reload(); // so that Tab starts at the top
    await isLive(page);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement?.className), "skip");
    await page.keyboard.press("Enter");
    for (let i = 0; i < 40; i += 1) {
      if (await page.evaluate(() => document.activeElement?.hasAttribute("data-zone") ?? false)) break;
      await page.keyboard.press("Tab");
    }
    const zone = await page.evaluate(() => document.activeElement?.getAttribute("data-zone"));
    assert.ok(zone, "no zone's button got the focus");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#details:not([hidden])");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "details-name");
    assert.equal(await page.locator('#list [aria-pressed="true"]').getAttribute("data-zone"), zone);
    assert.match(page.url(), new RegExp(`zone=${zone}`));
    assert.ok(((await page.locator("#details .words").first().textContent()) ?? "").length > 10);
    await page.waitForSelector("#details .chart svg[aria-label], #details .hint", { timeout: WAIT_MS });
    await shoot(page, "zone");
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#details").isVisible(), false);
    assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("data-zone")), zone);
  },

  /** @param {Page} page */
  async "every control has a name"(page) {
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, a, input, select, canvas[tabindex], [role=img]")]
        .filter((node) => {
          const label = node.getAttribute("aria-label") ?? node.closest("label")?.textContent ?? node.textContent;
          return (label ?? "").trim() === "" && !node.getAttribute("title");
        })
        .map((node) => node.outerHTML.slice(0, 120)),
    );
    assert.deepEqual(nameless, []);
    const row = await page.locator("#list [data-zone]").first().textContent();
    assert.match(row ?? "", /[\d,]+ people, [\d,]+ vehicles/);
    assert.equal(await page.getByRole("status").count(), 1);
    assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1);
    assert.equal(
      await page.locator("#list").getByRole("listitem").count(),
      await page.locator("#list [data-zone]").count(),
    );
  },

  /** @param {Page} page */
  async "the page fits a phone, and the sheet opens"(page) {
    await page.setViewportSize(PHONE);
    const fits = (/** @type {number} */ width) => innerWidth === width && document.body.scrollWidth <= width;
    await page.waitForFunction(fits, PHONE.width);
    const widths = await page.evaluate(() => [
      document.documentElement.scrollWidth,
      document.body.scrollWidth,
      innerWidth,
    ]);
    assert.ok(/** @type {number} */ (widths[0]) <= PHONE.width, `page ${widths[0]} px wide`);
    assert.ok(/** @type {number} */ (widths[1]) <= PHONE.width, `body ${widths[1]} px wide`);
    assert.equal(widths[2], PHONE.width);
    await shoot(page, "phone");
    const height = async () => (await page.locator("#panel").boundingBox())?.height ?? 0;
    const before = await height();
    await page.locator("#handle").press("Enter");
    const isHigher = (/** @type {number} */ low) =>
      (document.querySelector("#panel")?.getBoundingClientRect().height ?? 0) > low;
    await page.waitForFunction(isHigher, before);
    await page.setViewportSize(DESK);
  },

  /** @param {Page} page @param {Relay} relay */
  async "it shows when the server is gone, and reconnects"(page, relay) {
    await relay.cut();
    await page.waitForSelector('#status[data-state="reconnecting"]', { timeout: WAIT_MS });
    assert.match((await page.getByRole("status").textContent()) ?? "", /reconnecting/i);
    await becomes(() => page.title(), /^\(reconnecting\)/);
    await becomes(() => page.locator("#age").textContent(), /^Counts from \d+ (s|min) ago/);
    await shoot(page, "reconnecting");
    await relay.open();
    await isLive(page);
  },

  /** @param {Page} page @param {Relay} relay */
  async "it detects a connection that is open but dead"(page, relay) {
    relay.mute();
    await page.waitForSelector('#status[data-state="reconnecting"]', { timeout: WAIT_MS });
    relay.unmute();
    await isLive(page);
  },
};

/** @param {Relay} relay */
async function check(relay) {
  const browser = await chromium.launch({ executablePath: program, args: FLAGS });
  try {
    const context = await browser.newContext({ viewport: DESK, reducedMotion: "reduce" });
    context.setDefaultTimeout(WAIT_MS);
    const page = await context.newPage();
    const consoleErrors = /** @type {string[]} */ ([]);
    const externalRequests = /** @type {string[]} */ ([]);
    page.on("pageerror", (error) => consoleErrors.push(error.message));
    page.on("console", (message) => {
      const severe = message.type() === "error" || message.type() === "warning";
      if (severe && !(relay.failing && FAILED_REQUEST.test(message.text()))) consoleErrors.push(message.text());
    });
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (!["data:", "blob:"].includes(url.protocol) && url.origin !== new URL(relay.url).origin)
        externalRequests.push(url.href);
    });
    await page.goto(relay.url);
    let failed = 0;
    for (const [name, run] of Object.entries(CHECKS)) failed += await report(name, () => run(page, relay));
    failed += await report("the console has no errors", async () => assert.deepEqual(consoleErrors, []));
    failed += await report("no request goes to another server", async () => assert.deepEqual(externalRequests, []));
    return failed;
  } finally {
    await browser.close();
  }
}

/** @param {string} name @param {() => Promise<void>} run */
async function report(name, run) {
  try {
    await run();
    console.log(`ok    ${name}`);
    return 0;
  } catch (error) {
    console.log(
      `FAIL  ${name}\n      ${String(error instanceof Error ? error.message : error).replaceAll("\n", "\n      ")}`,
    );
    return 1;
  }
}

async function main() {
  if (!existsSync(program)) {
    console.log(`skipped: no browser at ${program} (set CHROMIUM to the program of one)`);
    return SKIPPED;
  }
  if (!server) {
    console.error(
      "HEADCOUNT_URL is not set: set it to the address of a running server, such as http://127.0.0.1:8080/",
    );
    return 1;
  }
  const relay = new Relay(server);
  await relay.open();
  try {
    const failed = await check(relay);
    console.log(failed === 0 ? "all checks pass" : `${failed} failed`);
    return failed === 0 ? 0 : 1;
  } finally {
    await relay.cut();
  }
}

process.exitCode = await main();
