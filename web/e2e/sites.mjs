// @ts-check
/**
 * The map page with two sites in a real browser, against a running server; the last check removes the shown site.
 *
 *   HEADCOUNT_URL=http://127.0.0.1:8080/ HEADCOUNT_TOKEN=<an admin's> HEADCOUNT_SITE=<id> node e2e/sites.mjs
 *
 * CHROMIUM  as for run.mjs
 *
 * Exit code: 0 if all checks pass, 1 if one fails, 77 if there is no browser (skipped).
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const SKIPPED = 77;
const WAIT_MS = 60_000;
const program = process.env.CHROMIUM ?? "/usr/bin/chromium";
const server = process.env.HEADCOUNT_URL ?? "";
const site = process.env.HEADCOUNT_SITE ?? "";

if (!existsSync(program)) {
  console.log(`no browser at ${program}: skipped`);
  process.exit(SKIPPED);
}
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-quic"] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(WAIT_MS);
  await page.goto(server);
  const menu = page.locator("#site");
  await menu.locator("option").nth(1).waitFor({ state: "attached" }); // when the page has read the sites
  await page.locator("#status[data-state=live]").waitFor();
  const first = await page.locator("#site-name").textContent();
  await menu.selectOption(site);
  await page.waitForURL(new RegExp(`site=${site}`));
  await page.locator("#status[data-state=live]").waitFor();
  assert.notEqual(await page.locator("#site-name").textContent(), first, "another site is shown");

  const headers = { authorization: `Bearer ${process.env.HEADCOUNT_TOKEN}` };
  const removed = await fetch(new URL(`v1/sites/${site}`, server), { method: "DELETE", headers });
  assert.equal(removed.status, 200, await removed.text());
  await page.locator("#age", { hasText: "This site was removed" }).waitFor();

  await page.reload();
  await page.locator("#notice", { hasText: `There is no site “${site}”` }).waitFor();
  assert.equal(await page.locator("#site-name").textContent(), first, "the first site is shown");
  assert.ok(await page.locator("#choose-site").isHidden(), "a single site has no menu");
} finally {
  await browser.close();
}
