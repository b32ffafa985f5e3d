/** The map page: connects its parts and passes counts and selections between them. */

import {
  Api,
  type Counts,
  type PingBody,
  parseCounts,
  parseTime,
  type Site,
  type SiteSummary,
  type Zone,
  type ZoneCounts,
} from "./api";
import { BottomSheet } from "./bottom-sheet";
import { Details } from "./details";
import { byId, element, setText } from "./element";
import { pageTitle } from "./format";
import { History } from "./history";
import { Legend } from "./legend";
import { ZoneList } from "./list";
import { followLink, showLogin } from "./login";
import type { ZoneMap } from "./map";
import { defaultMode, type Mode, modesOf, paletteFor, steps } from "./scale";
import { chooseSite } from "./site-choice";
import { CountsStream, type Source, type StreamState } from "./stream";
import { Totals } from "./totals";

/** Maps load a changed site within this time. */
const MAX_RELOAD_MS = 3_000;

const api = new Api(document.baseURI);
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** Sets the scale's colours for the list and the legend. */
function setColours(): void {
  const { style } = document.documentElement;
  const palette = paletteFor(darkScheme.matches);
  for (const [step, colour] of palette.steps.entries()) style.setProperty(`--step-${step}`, colour);
  style.setProperty("--step-neutral", palette.neutral);
  style.setProperty("--selected", palette.selected);
}

const queryParameter = (name: string): string | undefined =>
  new URLSearchParams(location.search).get(name) ?? undefined;

function setZoneParameter(zone: string | undefined): void {
  const url = new URL(location.href);
  if (zone === undefined) url.searchParams.delete("zone");
  else url.searchParams.set("zone", zone);
  history.replaceState(null, "", url);
}

class Page {
  readonly #counts = new Map<string, ZoneCounts>();
  readonly #zones: ReadonlyMap<string, Zone>;
  readonly #totals = new Totals(api);
  readonly #list: ZoneList;
  readonly #details: Details;
  readonly #legend: Legend;
  readonly #sheet: BottomSheet;
  #map: ZoneMap | undefined;
  #mode: Mode;
  #selected: string | undefined;
  #covered = 0;
  #reconnecting = false;
  #started = false;
  #frame = 0;

  constructor(private readonly site: Site) {
    this.#zones = new Map(site.zones.map((zone) => [zone.id, zone]));
    this.#mode = defaultMode(site.zones);
    const elements = {
      list: byId("list"),
      filters: byId("filters"),
      search: byId<HTMLInputElement>("search"),
      nothing: byId("nothing"),
    };
    this.#list = new ZoneList(elements, site.zones, (zone) => this.select(zone, true));
    this.#details = new Details(byId("details"), site, new History(api, site), () => this.select(undefined, true));
    this.#legend = new Legend(
      byId("legend"),
      modesOf(site.zones),
      this.#mode,
      (mode) => {
        this.#mode = mode;
        this.#render();
      },
      site.attribution,
    );
    this.#sheet = new BottomSheet(byId("app"), byId("panel"), byId("handle"), byId("handle-text"), (bottom) => {
      this.#covered = bottom;
      this.#coverMap();
      this.#map?.fit();
    });
    setText(byId("site-name"), site.name);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#selected !== undefined) this.select(undefined, true);
    });
    darkScheme.addEventListener("change", () => this.#map?.setPalette(paletteFor(darkScheme.matches)));
    this.#render();
  }

  /** Loads the map last: the counts don't wait for it, and are there if it can't be drawn. */
  async drawMap(): Promise<void> {
    try {
      const { ZoneMap } = await import("./map");
      this.#map = new ZoneMap(byId("map"), this.site, {
        palette: paletteFor(darkScheme.matches),
        select: (zone) => this.select(zone, false),
        reducedMotion: reducedMotion.matches,
      });
      this.#coverMap();
      this.#map.fit(false);
      this.#map.select(this.#selected);
      this.#render();
    } catch (error) {
      const note = byId("no-map");
      note.hidden = false;
      setText(note, "The map can’t be drawn in this browser (it needs WebGL 2). The list has all counts.");
      console.info("No map:", error);
    }
  }

  openStream(): void {
    const open = (): Source => new EventSource(api.streamUrl(this.site.id));
    const stream = new CountsStream(open, {
      counts: (body) => {
        this.#receive(parseCounts(body));
        if (body.full === true) this.#checkSite().catch((error) => console.info("The zones are not checked:", error));
      },
      ping: (body) => this.#receivePing(body),
      state: (state) => this.#setState(state),
      isRemoved: async () => {
        const sites = await api.sites();
        return sites.length > 0 && !sites.some(({ id }) => id === this.site.id);
      },
    });
    stream.start();
    addEventListener("online", () => stream.wake());
    addEventListener("pagehide", () => stream.stop());
    addEventListener("pageshow", (event) => event.persisted && stream.wake());
    document.addEventListener("visibilitychange", () => document.hidden || stream.wake());
  }

  /** Selects a zone, or none. `moveFocus` is set if it was selected in the list or with a key. */
  select(id: string | undefined, moveFocus: boolean): void {
    const zone = id === undefined ? undefined : this.#zones.get(id);
    if (zone?.id === this.#selected) {
      if (zone && moveFocus) this.#details.focus();
      return;
    }
    const previous = this.#selected;
    this.#selected = zone?.id;
    byId("app").classList.toggle("has-selection", zone !== undefined);
    this.#list.select(zone?.id);
    this.#details.show(zone, zone && this.#counts.get(zone.id));
    if (zone) this.#sheet.raise();
    this.#coverMap();
    this.#map?.select(zone?.id);
    if (moveFocus && zone) this.#details.focus();
    else if (moveFocus && previous !== undefined) this.#list.focus(previous);
    setZoneParameter(zone?.id);
  }

  #receive(counts: Counts): void {
    api.setClock(counts);
    for (const zone of counts.zones) this.#counts.set(zone.zone, zone);
    this.#totals.update(counts, this.#counts.get("site"));
    this.#updateTitle();
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#render());
  }

  /** After the first message, all zones are sent again when the connection is new or the site has changed. */
  async #checkSite(): Promise<void> {
    if (!this.#started) {
      this.#started = true;
      return;
    }
    await sleep(MAX_RELOAD_MS * Math.random()); // a thousand pages don't load at the same time
    const site = await api.site(this.site.id);
    if (JSON.stringify(site) !== JSON.stringify(this.site)) location.reload();
  }

  #receivePing(body: PingBody): void {
    const time = parseTime(body);
    if (!time) return;
    api.setClock(time);
    this.#totals.setTime(time.at);
  }

  #setState(state: StreamState): void {
    this.#reconnecting = state === "reconnecting" || state === "removed";
    byId("app").classList.toggle("reconnecting", this.#reconnecting);
    this.#totals.setState(state);
    this.#updateTitle();
  }

  #updateTitle(): void {
    const title = pageTitle(this.site.name, this.#counts.get("site"), this.#reconnecting);
    if (document.title !== title) document.title = title;
  }

  #render(): void {
    const { end, byZone } = steps(this.site.zones, this.#counts, this.#mode);
    this.#legend.update(this.#mode, end);
    this.#list.update(this.#counts, byZone);
    this.#map?.update(this.#counts, byZone, this.#mode);
    if (this.#selected !== undefined) this.#details.update(this.#counts.get(this.#selected));
  }

  #coverMap(): void {
    if (!this.#map) return;
    const legend = byId("legend");
    const card = byId("details");
    const narrow = this.#sheet.narrow;
    this.#map.setCovered({
      top: narrow ? legend.offsetTop + legend.offsetHeight : 0,
      right: 0,
      bottom: narrow ? this.#covered : legend.offsetHeight + 12,
      left: getComputedStyle(card).position === "fixed" && !card.hidden ? card.offsetWidth + 12 : 0,
    });
  }
}

function showSiteChoice(sites: readonly SiteSummary[], site: string): void {
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

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Loads the site, retrying until it is there: the page may be open before the server is ready. */
async function loadSite(): Promise<Site> {
  for (let wait = 1_000; ; wait = Math.min(wait * 2, 8_000)) {
    try {
      const sites = await api.sites();
      const chosen = chooseSite(sites, queryParameter("site"));
      if (chosen === undefined) throw new Error("The server has no site yet.");
      const site = await api.site(chosen.id);
      showSiteChoice(sites, chosen.id);
      byId("notice").hidden = chosen.notice === undefined;
      setText(byId("notice"), chosen.notice ?? "");
      return site;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      byId("status").dataset.state = "reconnecting";
      setText(byId("status-text"), "Reconnecting");
      setText(byId("age"), `No response from the server yet (${reason})`);
      await sleep(wait);
    }
  }
}

setColours();
darkScheme.addEventListener("change", setColours);
const problem = await followLink(document.baseURI); // before the stream opens, which then has exact counts
const page = new Page(await loadSite());
page.openStream();
void showLogin(byId("login"), document.baseURI, problem);
page.select(queryParameter("zone"), false);
await page.drawMap();
