// @ts-check
/**
 * All pages in a real browser against a running server: accessible by the rules of axe-core, no error in the console,
 * no request to another server; and the map after a login with a one-time link.
 *
 *   HEADCOUNT_URL=http://127.0.0.1:8080/ HEADCOUNT_LOGIN=<address of headcount login-link> node e2e/pages.mjs
 *
 * HEADCOUNT_DEVICE, HEADCOUNT_SECRET   a device whose data /me shows
 * CHROMIUM                             as for run.mjs
 *
 * Exit code: 0 if all checks pass, 1 if one fails, 77 if there is no browser (skipped).
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const SKIPPED = 77;
const WAIT_MS = 60_000;
/** Rules that are off by default, which browsers' own reports include. */
const MORE_RULES = { "label-content-name-mismatch": { enabled: true } };
const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const program = process.env.CHROMIUM ?? "/usr/bin/chromium";
const { HEADCOUNT_URL: server = "", HEADCOUNT_LOGIN: login = "" } = process.env;
const { HEADCOUNT_DEVICE: device = "", HEADCOUNT_SECRET: secret = "" } = process.env;

/** @typedef {import("playwright-core").Page} Page */

/** @param {Page} page */
async function isAccessible(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async (rules) => {
    // @ts-expect-error: axe is a global of the script above
    const { violations } = await axe.run(document, { rules });
    return violations.map(
      (/** @type {any} */ each) => `${each.id}: ${each.nodes.map((/** @type {any} */ n) => n.html)}`,
    );
  }, MORE_RULES);
  assert.deepEqual(found, []);
}

/** @type {Record<string, (page: Page) => Promise<void>>} */
const CHECKS = {
  async "the map is accessible, and links to the other pages"(page) {
    await page.goto(server);
    await page.waitForFunction(() => document.querySelector("#total-person")?.textContent !== "–");
    await page.waitForSelector("#map canvas");
    await isAccessible(page);
    for (const name of ["My data", "Privacy", "API"]) assert.equal(await page.getByRole("link", { name }).count(), 1);
    await page.locator("#list [data-zone]").first().click();
    await page.waitForSelector("#details:not([hidden]) .history");
    await isAccessible(page);
  },

  async "the map prints its numbers"(page) {
    await page.emulateMedia({ media: "print" });
    assert.equal(await page.locator("#map").isVisible(), false);
    const rows = page.locator("#list [data-zone]");
    const last = await rows.last().boundingBox();
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    assert.ok(last && last.y + last.height <= height + 1, "the last zone is cut off");
    await page.emulateMedia({ media: "screen" });
  },

  async "a token that does not exist is refused in words"(page) {
    await page.goto(server);
    await page.getByRole("button", { name: "Log in" }).click();
    await isAccessible(page);
    await page.getByLabel("Token").fill("nonsense");
    await page.getByRole("dialog").getByRole("button", { name: "Log in" }).click();
    await page.getByText("This token does not exist").waitFor();
  },

  async "a one-time link shows exact counts, and leaves the address bar"(page) {
    await page.goto("about:blank");
    await page.goto(login);
    await page.waitForFunction(() => /^exactly|–/.test(document.querySelector("#range-person")?.textContent ?? ""));
    assert.equal(page.url(), server);
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("button", { name: "Log in" }).waitFor();
    await page.goto("about:blank");
    await page.goto(login);
    await page.getByText("This link was used or has expired").waitFor();
  },

  async "/me is accessible, and names a wrong secret"(page) {
    await page.goto(new URL("me", server).href);
    await isAccessible(page);
    for (const [text, shown] of [
      ["wrong", "#message[data-tone=bad]"],
      [secret, "#lines tr"],
    ]) {
      await page.getByLabel("Id", { exact: true }).fill(device);
      await page.getByLabel("Secret", { exact: true }).fill(text ?? "");
      await page.getByRole("button", { name: "Show my data" }).click();
      await page
        .locator(shown ?? "")
        .first()
        .waitFor();
      if (text === "wrong")
        assert.match((await page.locator("#message").textContent()) ?? "", /^The id or the secret is wrong/);
      await isAccessible(page);
    }
    await page.getByRole("button", { name: "For an hour" }).click();
    await page.locator("#message", { hasText: "Paused" }).waitFor();
    assert.equal(await page.locator('[data-fact="counted in"]').textContent(), "no zone");
  },

  async "/privacy and a failed login are accessible pages"(page) {
    await page.goto(new URL("privacy", server).href);
    await isAccessible(page);
    await page.goto(new URL("login/callback?state=x", server).href);
    assert.match((await page.getByRole("heading").textContent()) ?? "", /Login/);
    await isAccessible(page);
  },

  async "/docs shows the API"(page) {
    await page.goto(new URL("docs", server).href);
    await page.locator(".opblock-summary-path", { hasText: "/counts" }).first().waitFor();
    assert.match(await page.title(), /API/);
  },
};

if (!existsSync(program) || !server) {
  console.log(server ? `no browser at ${program}: skipped` : "HEADCOUNT_URL is not set: skipped");
  process.exit(SKIPPED);
}
const flags = ["--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
const browser = await chromium.launch({ executablePath: program, args: [...flags, "--ignore-gpu-blocklist"] });
let failed = false;
try {
  const page = await (await browser.newContext({ reducedMotion: "reduce" })).newPage();
  page.setDefaultTimeout(WAIT_MS);
  /** @type {string[]} */
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !/^Failed to load resource/.test(message.text())) problems.push(message.text());
  });
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol.startsWith("http") && origin !== new URL(server).origin) problems.push(`request to ${request.url()}`);
  });
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      await check(page);
      assert.deepEqual(problems.splice(0), []);
      console.log(`ok    ${name}`);
    } catch (error) {
      failed = true;
      console.log(`FAIL  ${name}\n      ${error instanceof Error ? error.message : String(error)}`);
    }
  }
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
