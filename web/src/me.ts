/** A person's own page: sign in as a device; see, take away, pause, erase its data. */

import { Api, ApiError, type Site } from "./api";
import { type Credentials, joinCode, type Line, type Me, Own, redeem } from "./device-api";
import { byId, element, setText } from "./element";
import { trail } from "./track";

const KEPT = "headcount-device";
const REFRESH_MS = 15_000;
const base = document.baseURI;

const STATUS: Record<string, string> = {
  active: "counted when it sends",
  paused: "paused: nothing is counted",
  erasing: "being erased",
};

let own: Own | undefined;
let site: Site | undefined;
let timer = 0;

const time = (text: string | undefined): string => {
  const at = Date.parse(text ?? "");
  return Number.isNaN(at) ? "–" : new Date(at).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
};

function say(text: string, tone: "good" | "bad" = "good"): void {
  const said = byId("said");
  said.hidden = text === "";
  said.dataset.tone = tone;
  setText(said, text);
}

const zoneName = (id: string): string =>
  id === "site" ? "on site" : (site?.zones.find((zone) => zone.id === id)?.name ?? id);

function showFacts(me: Me): void {
  const connected = me.connected === undefined ? "not known" : me.connected ? "yes" : "no";
  const zones = me.zones.length > 0 ? me.zones.map(zoneName).join(", ") : "nowhere";
  const status = STATUS[me.status] ?? me.status;
  const facts: [string, string][] = [
    ["Id", me.device],
    ["Name", me.label || "none"],
    ["Kind", me.kind],
    ["Groups", me.groups.join(", ") || "none"],
    ["Status", me.resume ? `${status}, until ${time(me.resume)}` : status],
    ["Connected", connected],
    ["Counted now", zones],
    ["Last position", me.last ? `${time(me.last.t)}, ${me.last.verdict ?? "–"}` : "none is known"],
  ];
  byId("facts").replaceChildren(
    ...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", { "data-fact": name.toLowerCase() }, value)),
    ),
  );
  const paused = me.status === "paused";
  byId("resume").hidden = !paused;
  for (const button of document.querySelectorAll<HTMLElement>("[data-pause]")) button.hidden = paused;
  setText(
    byId("pause-words"),
    paused
      ? "You are in no zone, and what your device sends is thrown away."
      : "You leave every zone at once, and what your device sends is thrown away until the pause ends.",
  );
  byId("looks").replaceChildren(
    ...(me.looks.length > 0
      ? me.looks.map((look) => element("li", {}, `${time(look.at)}: ${look.actor}, because: ${look.reason || "–"}`))
      : [element("li", {}, "Nobody, as far as it is still known.")]),
  );
}

function showLines(lines: Line[]): void {
  byId("lines").replaceChildren(
    ...[...lines]
      .reverse()
      .map((line) =>
        element(
          "tr",
          {},
          element("td", {}, time(line.received)),
          element("td", {}, line.what),
          element("td", {}, line.why),
        ),
      ),
  );
  byId("no-lines").hidden = lines.length > 0;
  byId("trail").replaceChildren(...(site ? [trail(site, lines)] : []));
}

async function refresh(): Promise<void> {
  if (!own) return;
  const [me, lines] = await Promise.all([own.me(), own.lines()]);
  site ??= await new Api(base).site(me.site).catch(() => undefined);
  showFacts(me);
  showLines(lines);
  byId("gate").hidden = true;
  byId("own").hidden = false;
  byId("leave").hidden = false;
}

function leave(): void {
  own = undefined;
  clearInterval(timer);
  sessionStorage.removeItem(KEPT);
  byId("own").hidden = true;
  byId("leave").hidden = true;
  byId("given").hidden = true;
  byId("gate").hidden = false;
  byId<HTMLFormElement>("sign-in").reset();
  for (const id of ["given-id", "given-secret", "facts", "lines", "looks", "trail"]) byId(id).replaceChildren();
}

/** Does something, and says what came of it. */
async function attempt(work: () => Promise<string>): Promise<void> {
  try {
    say(await work());
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) leave();
    say(error instanceof Error ? error.message : String(error), "bad");
  }
}

async function signIn(credentials: Credentials, keep: boolean): Promise<void> {
  own = new Own(base, credentials);
  await refresh();
  if (keep) sessionStorage.setItem(KEPT, JSON.stringify(credentials));
  clearInterval(timer);
  timer = window.setInterval(() => {
    if (!document.hidden) refresh().catch(() => undefined);
  }, REFRESH_MS);
}

async function join(code: string): Promise<string> {
  const given = await redeem(base, code);
  setText(byId("given-id"), given.id);
  setText(byId("given-secret"), given.secret);
  setText(byId("given-broker"), given.broker);
  setText(byId("given-topic"), given.topic);
  byId("given").hidden = false;
  await signIn(given, false);
  return "The link has been used, and works no more.";
}

async function download(): Promise<string> {
  if (!own) return "";
  const url = URL.createObjectURL(await own.everything());
  element("a", { href: url, download: "headcount-my-data.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  return "Your data has been downloaded.";
}

function kept(): Credentials | undefined {
  try {
    const found: unknown = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    return found as Credentials | undefined;
  } catch {
    return undefined;
  }
}

function listen(): void {
  byId("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = (id: string): string => byId<HTMLInputElement>(id).value.trim();
    const keep = byId<HTMLInputElement>("keep").checked;
    void attempt(async () => {
      await signIn({ id: text("id"), secret: text("secret") }, keep);
      return "";
    });
  });
  byId("leave").addEventListener("click", () => {
    leave();
    say("You are signed out.");
  });
  byId("export").addEventListener("click", () => void attempt(download));
  for (const button of document.querySelectorAll<HTMLElement>("[data-pause]")) {
    const seconds = button.dataset.pause;
    button.addEventListener("click", () => {
      void attempt(async () => {
        await own?.pause(seconds ? Number(seconds) : undefined);
        await refresh();
        return "Paused.";
      });
    });
  }
  byId("resume").addEventListener("click", () => {
    void attempt(async () => {
      await own?.resume();
      await refresh();
      return "You are counted again.";
    });
  });
  byId("erase-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!byId<HTMLInputElement>("sure").checked) return;
    void attempt(async () => {
      const said = (await own?.erase()) ?? "";
      leave();
      byId<HTMLFormElement>("erase-form").reset();
      return said;
    });
  });
}

async function start(): Promise<void> {
  listen();
  const code = joinCode(location.hash);
  // out of the address bar, the history and bookmarks, before anything else
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  const before = kept();
  byId("gate").hidden = false;
  if (code !== undefined) await attempt(() => join(code));
  else if (before)
    await attempt(async () => {
      await signIn(before, true);
      return "";
    });
}

void start();
