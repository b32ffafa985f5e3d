/** The page: puts the parts together and passes numbers and choices between them. */

import { Api, type Counts, parseCounts, parseMoment, type Site, type SiteName, type Zone, type ZoneCount } from "./api";
import { Sheet } from "./bottom-sheet";
import { Details } from "./details";
import { byId, element, setText } from "./element";
import { pageTitle } from "./format";
import { History } from "./history";
import { Legend } from "./legend";
import { ZoneList } from "./list";
import { showLogin } from "./login";
import type { ZoneMap } from "./map";
import { defaultMode, type Mode, modesOf, paletteFor, steps } from "./scale";
import { CountsStream, type Source, type StreamState } from "./stream";
import { Totals } from "./totals";

const api = new Api(document.baseURI);
const darkness = matchMedia("(prefers-color-scheme: dark)");
const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/** The scale's colours, for the list and the legend. */
function dressPage(): void {
  const { style } = document.documentElement;
  const palette = paletteFor(darkness.matches);
  for (const [step, colour] of palette.steps.entries()) style.setProperty(`--step-${step}`, colour);
  style.setProperty("--step-neutral", palette.neutral);
  style.setProperty("--chosen", palette.chosen);
}

const asked = (name: string): string | undefined => new URLSearchParams(location.search).get(name) ?? undefined;

function remember(zone: string | undefined): void {
  const url = new URL(location.href);
  if (zone === undefined) url.searchParams.delete("zone");
  else url.searchParams.set("zone", zone);
  history.replaceState(null, "", url);
}

class Page {
  readonly #counts = new Map<string, ZoneCount>();
  readonly #zones: ReadonlyMap<string, Zone>;
  readonly #totals = new Totals(api);
  readonly #list: ZoneList;
  readonly #details: Details;
  readonly #legend: Legend;
  readonly #sheet: Sheet;
  #map: ZoneMap | undefined;
  #mode: Mode;
  #chosen: string | undefined;
  #covered = 0;
  #lost = false;
  #frame = 0;

  constructor(private readonly site: Site) {
    this.#zones = new Map(site.zones.map((zone) => [zone.id, zone]));
    this.#mode = defaultMode(site.zones);
    const parts = {
      list: byId("list"),
      filters: byId("filters"),
      search: byId<HTMLInputElement>("search"),
      nothing: byId("nothing"),
    };
    this.#list = new ZoneList(parts, site.zones, (zone) => this.choose(zone, true));
    this.#details = new Details(byId("details"), site, new History(api, site), () => this.choose(undefined, true));
    this.#legend = new Legend(
      byId("legend"),
      modesOf(site.zones),
      this.#mode,
      (mode) => {
        this.#mode = mode;
        this.#show();
      },
      site.attribution,
    );
    this.#sheet = new Sheet(byId("app"), byId("panel"), byId("handle"), byId("handle-text"), (bottom) => {
      this.#covered = bottom;
      this.#coverMap();
      this.#map?.fit();
    });
    setText(byId("site-name"), site.name);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#chosen !== undefined) this.choose(undefined, true);
    });
    darkness.addEventListener("change", () => this.#map?.dress(paletteFor(darkness.matches)));
    this.#show();
  }

  /** Loads the map last: the numbers don't wait for it, and do without it where it can't be drawn. */
  async drawMap(): Promise<void> {
    try {
      const { ZoneMap } = await import("./map");
      this.#map = new ZoneMap(byId("map"), this.site, {
        palette: paletteFor(darkness.matches),
        choose: (zone) => this.choose(zone, false),
        still: stillness.matches,
      });
      this.#coverMap();
      this.#map.fit(false);
      this.#map.select(this.#chosen);
      this.#show();
    } catch (error) {
      const note = byId("no-map");
      note.hidden = false;
      setText(note, "The map can’t be drawn in this browser (it needs WebGL 2). The list has all the numbers.");
      console.info("No map:", error);
    }
  }

  follow(): void {
    const open = (): Source => new EventSource(api.streamUrl(this.site.id));
    const stream = new CountsStream(open, {
      counts: (data) => this.#heard(parseCounts(data)),
      ping: (data) => this.#beat(data),
      state: (state) => this.#connection(state),
    });
    stream.start();
    addEventListener("online", () => stream.wake());
    addEventListener("pagehide", () => stream.stop());
    addEventListener("pageshow", (event) => event.persisted && stream.wake());
    document.addEventListener("visibilitychange", () => document.hidden || stream.wake());
  }

  /** Chooses a zone, or none. `moveFocus` where it was done in the list or with a key. */
  choose(id: string | undefined, moveFocus: boolean): void {
    const zone = id === undefined ? undefined : this.#zones.get(id);
    if (zone?.id === this.#chosen) {
      if (zone && moveFocus) this.#details.focus();
      return;
    }
    const before = this.#chosen;
    this.#chosen = zone?.id;
    byId("app").classList.toggle("has-choice", zone !== undefined);
    this.#list.select(zone?.id);
    this.#details.show(zone, zone && this.#counts.get(zone.id));
    if (zone) this.#sheet.raise();
    this.#coverMap();
    this.#map?.select(zone?.id);
    if (moveFocus && zone) this.#details.focus();
    else if (moveFocus && before !== undefined) this.#list.focus(before);
    remember(zone?.id);
  }

  #heard(counts: Counts): void {
    api.learnClock(counts);
    for (const zone of counts.zones) this.#counts.set(zone.zone, zone);
    this.#totals.heard(counts, this.#counts.get("site"));
    this.#entitle();
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#show());
  }

  #beat(data: unknown): void {
    const moment = parseMoment(data);
    if (!moment) return;
    api.learnClock(moment);
    this.#totals.valid(moment.at);
  }

  #connection(state: StreamState): void {
    this.#lost = state === "reconnecting";
    byId("app").classList.toggle("lost", this.#lost);
    this.#totals.connection(state);
    this.#entitle();
  }

  #entitle(): void {
    const title = pageTitle(this.site.name, this.#counts.get("site"), this.#lost);
    if (document.title !== title) document.title = title;
  }

  #show(): void {
    const { end, of } = steps(this.site.zones, this.#counts, this.#mode);
    this.#legend.update(this.#mode, end);
    this.#list.update(this.#counts, of);
    this.#map?.update(this.#counts, of, this.#mode);
    if (this.#chosen !== undefined) this.#details.update(this.#counts.get(this.#chosen));
  }

  #coverMap(): void {
    if (!this.#map) return;
    const legend = byId("legend");
    const card = byId("details");
    const narrow = this.#sheet.narrow;
    this.#map.cover({
      top: narrow ? legend.offsetTop + legend.offsetHeight : 0,
      right: 0,
      bottom: narrow ? this.#covered : legend.offsetHeight + 12,
      left: getComputedStyle(card).position === "fixed" && !card.hidden ? card.offsetWidth + 12 : 0,
    });
  }
}

function offerSites(sites: readonly SiteName[], site: string): void {
  const select = byId<HTMLSelectElement>("site");
  for (const { id, name } of sites) {
    const option = element("option", { value: id }, name);
    option.selected = id === site;
    select.append(option);
  }
  select.addEventListener("change", () => {
    location.search = new URLSearchParams({ site: select.value }).toString();
  });
  byId("choose-site").hidden = sites.length < 2;
}

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The site's description, asked for until it is there: the page may be open before the server is. */
async function loadSite(): Promise<Site> {
  for (let wait = 1_000; ; wait = Math.min(wait * 2, 8_000)) {
    try {
      const sites = await api.sites();
      const id = sites.find((site) => site.id === asked("site"))?.id ?? sites[0]?.id;
      if (id === undefined) throw new Error("The server has no site yet.");
      const site = await api.site(id);
      offerSites(sites, id);
      return site;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      byId("status").dataset.state = "reconnecting";
      setText(byId("status-text"), "Reconnecting");
      setText(byId("age"), `No answer from the server yet (${why})`);
      await pause(wait);
    }
  }
}

dressPage();
darkness.addEventListener("change", dressPage);
const page = new Page(await loadSite());
page.follow();
void showLogin(byId("login"), document.baseURI);
page.choose(asked("zone"), false);
await page.drawMap();
