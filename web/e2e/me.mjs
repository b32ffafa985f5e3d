// @ts-check
/**
 * The page /me in a real browser with a phone's screen, against a running server.
 *
 *   HEADCOUNT_URL=http://127.0.0.1:8080/ HEADCOUNT_DEVICE=<id> HEADCOUNT_SECRET=<secret> node e2e/me.mjs
 *
 * HEADCOUNT_JOIN     a one-time code to redeem; it gives the device a new secret
 * HEADCOUNT_ERASE    1: erase the device at the end
 * CHROMIUM, HEADCOUNT_SHOTS  as for run.mjs
 *
 * Exit code: 0 if all checks pass, 1 if one fails, 77 if there is no browser (skipped).
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const SKIPPED = 77;
const WAIT_MS = 60_000;
const PHONE = { width: 390, height: 844 };
const program = process.env.CHROMIUM ?? "/usr/bin/chromium";
const server = process.env.HEADCOUNT_URL ?? "";
const id = process.env.HEADCOUNT_DEVICE ?? "";
const secret = process.env.HEADCOUNT_SECRET ?? "";
const code = process.env.HEADCOUNT_JOIN;
const shots = process.env.HEADCOUNT_SHOTS;

/** @typedef {import("playwright-core").Page} Page */

/** @param {Page} page @param {string} secret */
async function signIn(page, secret, remember = false) {
  await page.getByLabel("Id", { exact: true }).fill(id);
  await page.getByLabel("Secret", { exact: true }).fill(secret);
  if (remember) await page.getByLabel("Remember me").check();
  await page.getByRole("button", { name: "Show my data" }).click();
}

/** @param {Page} page @param {RegExp} text */
const shows = (page, text) => page.locator("#message", { hasText: text }).waitFor({ timeout: WAIT_MS });

/** @param {Page} page @param {string} tone */
const showsMessage = (page, tone) => page.locator(`#message[data-tone="${tone}"]`).waitFor({ timeout: WAIT_MS });

/** @param {Page} page @param {string} name */
const fact = (page, name) => page.locator(`[data-fact="${name}"]`);

/** The checks, in order; each starts with the page as the previous one left it. */
const CHECKS = {
  /** @param {Page} page */
  async "a wrong secret is rejected"(page) {
    await signIn(page, "wrong");
    await showsMessage(page, "bad");
    assert.equal(await page.locator("#data").isVisible(), false);
  },

  /** @param {Page} page */
  async "the stored data appears, with the positions of the last hour"(page) {
    await signIn(page, secret);
    await page.locator("#data").waitFor({ timeout: WAIT_MS });
    assert.equal(await fact(page, "id").textContent(), id);
    await page.locator("#lines tr").first().waitFor({ timeout: WAIT_MS });
    assert.match((await page.locator("#lines").textContent()) ?? "", /accepted/);
    assert.ok((await page.locator("#track circle.fix").count()) > 0);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= PHONE.width, `the page is ${width} wide on a phone`);
    if (shots) {
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: join(shots, "me.png"), fullPage: true });
    }
  },

  /** @param {Page} page */
  async "all data can be exported"(page) {
    const [download] = await Promise.all([
      page.waitForEvent("download", { timeout: WAIT_MS }),
      page.getByRole("button", { name: "Download my data" }).click(),
    ]);
    const found = JSON.parse(readFileSync(await download.path(), "utf8"));
    assert.equal(found.registry.id, id);
    assert.equal(JSON.stringify(found).includes(secret), false);
  },

  /** @param {Page} page */
  async "it pauses and resumes"(page) {
    await page.getByRole("button", { name: "For an hour" }).click();
    await shows(page, /Paused/);
    assert.match((await fact(page, "status").textContent()) ?? "", /paused.*until/);
    await page.getByRole("button", { name: "Count me again" }).click();
    await shows(page, /counted again/);
    assert.match((await fact(page, "status").textContent()) ?? "", /^counted/);
  },

  /** @param {Page} page */
  async "nothing is stored unless requested"(page) {
    await page.reload();
    await page.locator("#sign-in").waitFor({ timeout: WAIT_MS });
    assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length), 0);
    await signIn(page, secret, true);
    await page.locator("#data").waitFor({ timeout: WAIT_MS });
    await page.reload();
    await page.locator("#data").waitFor({ timeout: WAIT_MS });
    await page.getByRole("button", { name: "Sign out" }).click();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    assert.equal((await page.content()).includes(id), false);
    assert.equal(await page.evaluate(() => document.cookie), "");
  },

  /** @param {Page} page */
  async "a one-time link gives new credentials once, and is removed from the address bar"(page) {
    if (!code) return;
    await page.goto("about:blank");
    await page.goto(new URL(`me#join=${code}`, server).href);
    await shows(page, /has been used/);
    assert.equal(page.url().includes(code), false);
    assert.equal(await page.locator("#new-id").textContent(), id);
    await page.locator("#data").waitFor({ timeout: WAIT_MS });
    await page.goto("about:blank");
    await page.goto(new URL(`me#join=${code}`, server).href);
    await showsMessage(page, "bad");
    assert.equal(await page.locator("#data").isVisible(), false);
  },

  /** @param {Page} page */
  async "erasing needs a confirmation, and signs out"(page) {
    if (process.env.HEADCOUNT_ERASE !== "1" || code) return;
    await signIn(page, secret);
    await page.locator("#data").waitFor({ timeout: WAIT_MS });
    await page.getByRole("button", { name: "Erase my data" }).click();
    assert.equal(await page.locator("#data").isVisible(), true);
    await page.getByLabel("Yes, erase all data").check();
    await page.getByRole("button", { name: "Erase my data" }).click();
    await page.locator("#sign-in").waitFor({ timeout: WAIT_MS });
    await showsMessage(page, "good");
    await signIn(page, secret);
    await showsMessage(page, "bad");
  },
};

if (!existsSync(program) || !server) {
  console.log(server ? `no browser at ${program}: skipped` : "HEADCOUNT_URL is not set: skipped");
  process.exit(SKIPPED);
}
const browser = await chromium.launch({
  executablePath: program,
  args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"],
});
let failed = false;
try {
  const context = await browser.newContext({
    viewport: PHONE,
    hasTouch: true,
    acceptDownloads: true,
    ignoreHTTPSErrors: true,
  });
  const page = await context.newPage();
  /** @type {string[]} */
  const external = [];
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol.startsWith("http") && origin !== new URL(server).origin) external.push(request.url());
  });
  /** @type {string[]} */
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // the browser's own message about a rejected request
    if (message.type() === "error" && !/^Failed to load resource/.test(message.text())) errors.push(message.text());
  });
  await page.goto(new URL("me", server).href);
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      await check(page);
      console.log(`ok    ${name}`);
    } catch (error) {
      failed = true;
      console.log(
        `FAIL  ${name}\n      ${error instanceof Error ? error.message : String(error)}\n      message: ${await page.locator("#message").textContent()}`,
      );
    }
  }
  for (const problem of [...errors, ...external.map((url) => `request to another server: ${url}`)]) {
    failed = true;
    console.log(`FAIL  ${problem}`);
  }
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
