/** The history of the selected zone: loads it, refreshes it, and draws it. */

import { type Api, type HistoryRow, isNumber, type Kind, type Site, type Zone, type ZoneCounts } from "./api";
import { chart, type Point, pointsOf, type Span } from "./chart";
import { element, setAttribute } from "./element";
import { mainKind } from "./scale";

/** The ranges to choose from: hours, and seconds between two points so that there are at most 360. */
const RANGES: readonly { hours: number; stepSeconds: number }[] = [
  { hours: 1, stepSeconds: 10 },
  { hours: 6, stepSeconds: 60 },
  { hours: 24, stepSeconds: 300 },
];
/** Public counts are of full minutes. */
const PUBLIC_STEP_SECONDS = 60;
const REFRESH_MS = 30_000;
const HOUR_MS = 3_600_000;

export class History {
  readonly root = element("section", { class: "history", "aria-labelledby": "history-title" });
  readonly #charts = element("div", { class: "charts" });
  #range = RANGES[0] as (typeof RANGES)[number];
  #zone: Zone | undefined;
  #rows: HistoryRow[] | undefined;
  #counts: ZoneCounts | undefined;
  #loadedAt = 0;
  #drawnAt = 0;
  #problem = "";

  constructor(
    private readonly api: Api,
    private readonly site: Site,
  ) {
    const buttons = RANGES.map((range) => {
      const label = range.hours === 1 ? "1 hour" : `${range.hours} hours`;
      const pressed = String(range === this.#range);
      const button = element(
        "button",
        { type: "button", class: "chip", "aria-pressed": pressed, title: label },
        `${range.hours} h`,
      );
      button.addEventListener("click", () => {
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        this.#range = range;
        void this.#load();
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

  show(zone: Zone | undefined, counts: ZoneCounts | undefined): void {
    this.#zone = zone;
    this.#counts = counts;
    this.#rows = undefined;
    this.#problem = "";
    this.#charts.replaceChildren();
    if (zone) void this.#load();
  }

  /** Live counts extend the chart to the present. */
  update(counts: ZoneCounts | undefined): void {
    this.#counts = counts;
    if (!this.#zone) return;
    const now = this.api.now();
    if (now - this.#loadedAt > REFRESH_MS) void this.#load();
    else if (now - this.#drawnAt > 2_000) this.#draw();
  }

  async #load(): Promise<void> {
    const { hours } = this.#range;
    const stepSeconds = this.#stepSeconds();
    const zone = this.#zone;
    if (!zone) return;
    const now = this.api.now();
    this.#loadedAt = now;
    try {
      const rows = await this.api.history(this.site.id, zone.id, now - hours * HOUR_MS, now, stepSeconds);
      if (zone !== this.#zone || stepSeconds !== this.#stepSeconds()) return;
      this.#rows = rows;
      this.#problem = "";
    } catch (error) {
      // The counts above are right without it, and the next refresh tries again.
      this.#problem = `The history isn’t available: ${error instanceof Error ? error.message : String(error)}`;
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
    const span: Span = { from: to - this.#range.hours * HOUR_MS, to, stepMs: this.#stepSeconds() * 1000 };
    const charts = this.#kinds(zone).map((kind) => chart(kind, this.#points(kind, to), span, this.site.timezone));
    this.#charts.replaceChildren(...charts);
  }

  #points(kind: Kind, now: number): Point[] {
    const points = pointsOf(this.#rows ?? [], kind);
    const numbers = this.#counts?.[kind];
    if (!numbers || !isNumber(numbers)) return points;
    const value = numbers.count;
    const afterGap = this.#rows?.at(-1) !== undefined && !isNumber((this.#rows.at(-1) as HistoryRow)[kind]);
    return [...points, { at: now, value, min: value, max: value, ...(afterGap ? { afterGap } : {}) }];
  }

  /** Seconds between two points; public counts have no finer step than a minute. */
  #stepSeconds(): number {
    const exact = this.#counts !== undefined && this.#counts.person.disclosure === undefined;
    return exact ? this.#range.stepSeconds : Math.max(PUBLIC_STEP_SECONDS, this.#range.stepSeconds);
  }

  /** The zone's main kind, and the other one if there was any. */
  #kinds(zone: Zone): Kind[] {
    const main = mainKind(zone);
    const other: Kind = main === "person" ? "vehicle" : "person";
    const any = this.#points(other, 0).some((point) => point.max > 0);
    return any ? [main, other] : [main];
  }
}
