/** The last hours of the chosen zone: asks for them, again now and then, and draws them. */

import { type Api, type HistoryRow, type Kind, known, type Site, type Zone, type ZoneCount } from "./api";
import { chart, type Point, pointsOf, type Span } from "./chart";
import { element, setAttribute } from "./element";
import { mainKind } from "./scale";

/** What can be chosen: hours, and seconds between two points so that there are at most 360. */
const REACHES: readonly { hours: number; stepSeconds: number }[] = [
  { hours: 1, stepSeconds: 10 },
  { hours: 6, stepSeconds: 60 },
  { hours: 24, stepSeconds: 300 },
];
/** What the public is told is of full minutes. */
const MINUTE_SECONDS = 60;
const AGAIN_MS = 30_000;
const HOUR_MS = 3_600_000;

export class History {
  readonly root = element("section", { class: "history", "aria-labelledby": "history-title" });
  readonly #charts = element("div", { class: "charts" });
  #reach = REACHES[0] as (typeof REACHES)[number];
  #zone: Zone | undefined;
  #rows: HistoryRow[] | undefined;
  #counts: ZoneCount | undefined;
  #askedAt = 0;
  #drawnAt = 0;
  #problem = "";

  constructor(
    private readonly api: Api,
    private readonly site: Site,
  ) {
    const buttons = REACHES.map((reach) => {
      const label = reach.hours === 1 ? "1 hour" : `${reach.hours} hours`;
      const pressed = String(reach === this.#reach);
      const button = element(
        "button",
        { type: "button", class: "chip", "aria-pressed": pressed, "aria-label": label },
        `${reach.hours} h`,
      );
      button.addEventListener("click", () => {
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        this.#reach = reach;
        void this.#ask();
      });
      return button;
    });
    this.root.append(
      element(
        "div",
        { class: "history-head" },
        element("h3", { id: "history-title" }, "Last hours"),
        element("div", { class: "filters", role: "group", "aria-label": "How far back" }, ...buttons),
      ),
      this.#charts,
    );
  }

  show(zone: Zone | undefined, counts: ZoneCount | undefined): void {
    this.#zone = zone;
    this.#counts = counts;
    this.#rows = undefined;
    this.#problem = "";
    this.#charts.replaceChildren();
    if (zone) void this.#ask();
  }

  /** The live numbers are the chart's right end. */
  update(counts: ZoneCount | undefined): void {
    this.#counts = counts;
    if (!this.#zone) return;
    const now = this.api.now();
    if (now - this.#askedAt > AGAIN_MS) void this.#ask();
    else if (now - this.#drawnAt > 2_000) this.#draw();
  }

  async #ask(): Promise<void> {
    const { hours } = this.#reach;
    const stepSeconds = this.#stepSeconds();
    const zone = this.#zone;
    if (!zone) return;
    const now = this.api.now();
    this.#askedAt = now;
    try {
      const rows = await this.api.history(this.site.id, zone.id, now - hours * HOUR_MS, now, stepSeconds);
      if (zone !== this.#zone || stepSeconds !== this.#stepSeconds()) return;
      this.#rows = rows;
      this.#problem = "";
    } catch (error) {
      // The numbers above stay right without it; the next try comes by itself.
      this.#problem = `The history can’t be shown now: ${error instanceof Error ? error.message : String(error)}`;
    }
    if (zone === this.#zone) this.#draw();
  }

  #draw(): void {
    const zone = this.#zone;
    if (!zone) return;
    const to = this.api.now();
    this.#drawnAt = to;
    if (this.#problem && !this.#rows) {
      this.#charts.replaceChildren(element("p", { class: "hint" }, this.#problem));
      return;
    }
    const span: Span = { from: to - this.#reach.hours * HOUR_MS, to, stepMs: this.#stepSeconds() * 1000 };
    const charts = this.#kinds(zone).map((kind) => chart(kind, this.#points(kind, to), span, this.site.timezone));
    this.#charts.replaceChildren(...charts);
  }

  #points(kind: Kind, now: number): Point[] {
    const points = pointsOf(this.#rows ?? [], kind);
    const numbers = this.#counts?.[kind];
    if (!numbers || !known(numbers)) return points;
    const value = numbers.count;
    const apart = this.#rows?.at(-1) !== undefined && !known((this.#rows.at(-1) as HistoryRow)[kind]);
    return [...points, { at: now, value, min: value, max: value, ...(apart ? { apart } : {}) }];
  }

  /** Seconds between two points, as far as the numbers allow. */
  #stepSeconds(): number {
    const exact = this.#counts !== undefined && this.#counts.person.told === undefined;
    return exact ? this.#reach.stepSeconds : Math.max(MINUTE_SECONDS, this.#reach.stepSeconds);
  }

  /** The zone's main kind, and the other one where there was any. */
  #kinds(zone: Zone): Kind[] {
    const main = mainKind(zone);
    const other: Kind = main === "person" ? "vehicle" : "person";
    const any = this.#points(other, 0).some((point) => point.max > 0);
    return any ? [main, other] : [main];
  }
}
