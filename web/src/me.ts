/** The page for a device's owner: sign in as the device; view, export, pause and erase its data. */

import { Api, ApiError, type Site } from "./api";
import {
  brokerUrl,
  type Credentials,
  DeviceApi,
  joinCode,
  type Me,
  outcome,
  redeem,
  type TraceLine,
} from "./device-api";
import { byId, element, setText } from "./element";
import { drawTrack } from "./track";

const STORAGE_KEY = "headcount-device";
const REFRESH_MS = 15_000;
const base = document.baseURI;

const STATUS: Record<Me["status"], string> = {
  active: "counted while it sends positions",
  paused: "paused, not counted",
  disabled: "disabled, not counted",
  erasing: "being erased",
};

let device: DeviceApi | undefined;
let site: Site | undefined;
let timer = 0;

const formatTime = (text: string | null | undefined): string => {
  const at = Date.parse(text ?? "");
  return Number.isNaN(at) ? "–" : new Date(at).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
};

function showMessage(text: string, tone: "good" | "bad" = "good"): void {
  const message = byId("message");
  message.hidden = text === "";
  message.dataset.tone = tone;
  setText(message, text);
}

const zoneName = (id: string): string =>
  id === "site" ? "on site" : (site?.zones.find((zone) => zone.id === id)?.name ?? id);

/** The time and verdict of the last position; `last` is an open object in OpenAPI. */
function lastPosition({ last }: Me): string {
  if (!last) return "none known";
  const { t, verdict } = last as { t: string | null; verdict: string | null };
  return `${formatTime(t)}, ${verdict ?? "–"}`;
}

function showFacts(me: Me): void {
  const connected = me.connected === null ? "unknown" : me.connected ? "yes" : "no";
  const zones = me.zones.length > 0 ? me.zones.map(zoneName).join(", ") : "no zone";
  const status = STATUS[me.status];
  const facts: [string, string][] = [
    ["Id", me.device],
    ["Name", me.label || "none"],
    ["Kind", me.kind],
    ["Groups", me.groups.join(", ") || "none"],
    ["Status", me.resume ? `${status}, until ${formatTime(me.resume)}` : status],
    ["Connected", connected],
    ["Counted in", zones],
    ["Last position", lastPosition(me)],
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
    byId("pause-text"),
    paused
      ? "You are in no zone, and the positions that your device sends are discarded."
      : "You leave all zones immediately, and the positions that your device sends are discarded until the pause ends.",
  );
  byId("access-history").replaceChildren(
    ...(me.looks.length > 0
      ? me.looks.map(({ at, actor, reason }) =>
          element("li", {}, `${formatTime(at)}: ${actor}, reason: ${reason || "–"}`),
        )
      : [element("li", {}, "No access on record.")]),
  );
}

function showTrace(lines: TraceLine[]): void {
  byId("lines").replaceChildren(
    ...[...lines]
      .reverse()
      .map((line) =>
        element(
          "tr",
          {},
          element("td", {}, formatTime(line.received)),
          element("td", {}, outcome(line)),
          element("td", {}, line.why),
        ),
      ),
  );
  byId("no-lines").hidden = lines.length > 0;
  byId("track").replaceChildren(...(site ? [drawTrack(site, lines)] : []));
}

async function refresh(): Promise<void> {
  if (!device) return;
  const [me, lines] = await Promise.all([device.me(), device.trace()]);
  site ??= await new Api(base).site(me.site).catch(() => undefined);
  showFacts(me);
  showTrace(lines);
  byId("sign-in").hidden = true;
  byId("data").hidden = false;
  byId("sign-out").hidden = false;
}

function signOut(): void {
  device = undefined;
  clearInterval(timer);
  sessionStorage.removeItem(STORAGE_KEY);
  byId("data").hidden = true;
  byId("sign-out").hidden = true;
  byId("credentials").hidden = true;
  byId("sign-in").hidden = false;
  byId<HTMLFormElement>("sign-in-form").reset();
  byId<HTMLAnchorElement>("owntracks").href = "#credentials";
  for (const id of ["new-id", "new-secret", "facts", "lines", "access-history", "track"]) byId(id).replaceChildren();
}

/** Runs an action and shows its result or its error. */
async function attempt(action: () => Promise<string>): Promise<void> {
  try {
    showMessage(await action());
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      signOut();
      showMessage("The id or the secret is wrong.", "bad");
    } else showMessage(error instanceof Error ? error.message : String(error), "bad");
  }
}

async function signIn(credentials: Credentials, remember: boolean): Promise<void> {
  device = new DeviceApi(base, credentials);
  await refresh();
  if (remember) sessionStorage.setItem(STORAGE_KEY, JSON.stringify(credentials));
  clearInterval(timer);
  timer = window.setInterval(() => {
    if (!document.hidden) refresh().catch(() => undefined);
  }, REFRESH_MS);
}

async function join(code: string): Promise<string> {
  const { device: id, secret, mqtt, topic, owntracks } = await redeem(base, code);
  const texts = { id, secret, topic, broker: brokerUrl(mqtt) };
  for (const [name, text] of Object.entries(texts)) setText(byId(`new-${name}`), text);
  const appLink = byId<HTMLAnchorElement>("owntracks");
  appLink.href = owntracks;
  appLink.hidden = false;
  byId("credentials").hidden = false;
  await signIn({ id, secret }, false);
  return "The link has been used and is no longer valid.";
}

async function download(): Promise<string> {
  if (!device) return "";
  const url = URL.createObjectURL(await device.export());
  element("a", { href: url, download: "headcount-my-data.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  return "Your data has been downloaded.";
}

function storedCredentials(): Credentials | undefined {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}

function addListeners(): void {
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = (id: string): string => byId<HTMLInputElement>(id).value.trim();
    const remember = byId<HTMLInputElement>("remember").checked;
    void attempt(async () => {
      await signIn({ id: text("id"), secret: text("secret") }, remember);
      return "";
    });
  });
  byId("sign-out").addEventListener("click", () => {
    signOut();
    showMessage("You are signed out.");
  });
  byId("copy").addEventListener("click", () => {
    const lines = ["id", "secret", "broker", "topic"].map((name) => `${name}  ${byId(`new-${name}`).textContent}`);
    void attempt(async () => {
      await navigator.clipboard.writeText(lines.join("\n"));
      return "Copied. Paste it into your device's app, and nowhere else.";
    });
  });
  byId("export").addEventListener("click", () => void attempt(download));
  for (const button of document.querySelectorAll<HTMLElement>("[data-pause]")) {
    const seconds = button.dataset.pause;
    button.addEventListener("click", () => {
      void attempt(async () => {
        await device?.pause(seconds ? Number(seconds) : undefined);
        await refresh();
        return "Paused.";
      });
    });
  }
  byId("resume").addEventListener("click", () => {
    void attempt(async () => {
      await device?.resume();
      await refresh();
      return "You are counted again.";
    });
  });
  byId("erase-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!byId<HTMLInputElement>("sure").checked) return;
    void attempt(async () => {
      const confirmation = (await device?.erase()) ?? "";
      signOut();
      byId<HTMLFormElement>("erase-form").reset();
      return confirmation;
    });
  });
}

async function start(): Promise<void> {
  addListeners();
  const code = joinCode(location.hash);
  // before anything else, so that the code stays out of the address bar, the history and bookmarks
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  const stored = storedCredentials();
  byId("sign-in").hidden = false;
  if (code !== undefined) await attempt(() => join(code));
  else if (stored)
    await attempt(async () => {
      await signIn(stored, true);
      return "";
    });
}

void start();
