/** The list of zones, busiest first. */

import { known, type Zone, type ZoneCount } from "./api";
import { element, icon, setAttribute, setText } from "./element";
import { percent, shown, typeName, typePlural, zoneInWords } from "./format";
import { occupancy, type Step } from "./scale";

type CountsByZone = ReadonlyMap<string, ZoneCount>;

/** Which zones are shown. */
export interface Filter {
  type: string | undefined;
  words: string;
}

const busy = (counts: ZoneCount | undefined): number => (counts ? counts.person.count + counts.vehicle.count : 0);

/** The zones that pass the filter, those with the most people and vehicles first, then by name. */
export function busiestFirst(zones: readonly Zone[], counts: CountsByZone, filter: Filter): Zone[] {
  const words = filter.words.trim().toLocaleLowerCase("en");
  return zones
    .filter((zone) => filter.type === undefined || zone.type === filter.type)
    .filter((zone) => zone.name.toLocaleLowerCase("en").includes(words))
    .sort((a, b) => busy(counts.get(b.id)) - busy(counts.get(a.id)) || a.name.localeCompare(b.name, "en"));
}

/** The types that occur, the most frequent first, with how often. */
export function typesOf(zones: readonly Zone[]): [type: string, many: number][] {
  const many = new Map<string, number>();
  for (const zone of zones) many.set(zone.type, (many.get(zone.type) ?? 0) + 1);
  return [...many].sort((a, b) => b[1] - a[1]);
}

/**
 * Puts `items` into the order given without ever moving the one that has the focus:
 * moving it would take the focus away from whoever is reading or pressing keys there.
 */
export function arrange(list: HTMLElement, items: readonly HTMLElement[]): void {
  const wanted = new Set<Element>(items);
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  const still = items.findIndex((item) => item.contains(document.activeElement));
  const before = still < 0 ? items : items.slice(0, still);
  let next: Element | null = list.firstElementChild;
  const fixed = still < 0 ? undefined : items[still];
  for (const item of before) {
    if (item === next) next = next.nextElementSibling;
    else list.insertBefore(item, next === fixed ? (fixed ?? null) : next);
  }
  let last: Element | undefined = fixed;
  for (const item of still < 0 ? [] : items.slice(still + 1)) {
    const after: Element | null = last?.nextElementSibling ?? null;
    if (after !== item) list.insertBefore(item, after);
    last = item;
  }
}

interface Row {
  item: HTMLLIElement;
  button: HTMLButtonElement;
  swatch: HTMLElement;
  note: HTMLElement;
  person: HTMLElement;
  vehicle: HTMLElement;
}

function makeRow(zone: Zone): Row {
  const swatch = element("span", { class: "swatch" });
  const note = element("span", { class: "row-note" }, typeName(zone.type));
  const person = element("b", {}, "–");
  const vehicle = element("b", {}, "–");
  const button = element(
    "button",
    { type: "button", class: "row", "data-zone": zone.id, "aria-pressed": "false", "aria-label": zone.name },
    swatch,
    element("span", { class: "row-text" }, element("span", { class: "row-name" }, zone.name), note),
    element("span", { class: "row-number" }, icon("person"), person),
    element("span", { class: "row-number" }, icon("vehicle"), vehicle),
  );
  return { item: element("li", {}, button), button, swatch, note, person, vehicle };
}

/** Rows don't swap places more often than this, nor under a moving pointer. */
const SORT_EVERY_MS = 2_000;

export interface ListParts {
  list: HTMLElement;
  filters: HTMLElement;
  search: HTMLInputElement;
  nothing: HTMLElement;
}

export class ZoneList {
  readonly #rows = new Map<string, Row>();
  readonly #filter: Filter = { type: undefined, words: "" };
  #counts: CountsByZone = new Map();
  #sortedAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pointerAt = 0;

  constructor(
    private readonly parts: ListParts,
    private readonly zones: readonly Zone[],
    private readonly choose: (zone: string) => void,
  ) {
    for (const zone of zones) this.#rows.set(zone.id, makeRow(zone));
    parts.list.addEventListener("click", (event) => {
      const button = (event.target as Element).closest<HTMLElement>("[data-zone]");
      if (button?.dataset.zone) this.choose(button.dataset.zone);
    });
    parts.list.addEventListener("keydown", (event) => this.#step(event));
    parts.list.addEventListener("pointermove", () => (this.#pointerAt = Date.now()));
    parts.search.addEventListener("input", () => {
      this.#filter.words = parts.search.value;
      this.#sort();
    });
    this.#makeFilters();
    this.#sort();
  }

  update(counts: CountsByZone, steps: ReadonlyMap<string, Step>): void {
    this.#counts = counts;
    for (const zone of this.zones) {
      const row = this.#rows.get(zone.id);
      if (row) this.#fill(row, zone, counts.get(zone.id), steps.get(zone.id));
    }
    this.#sortSoon();
  }

  select(zone: string | undefined): void {
    for (const [id, row] of this.#rows) setAttribute(row.button, "aria-pressed", String(id === zone));
  }

  /** Focus on a zone's row, or on the first one where it isn't shown. */
  focus(zone: string): void {
    const row = this.#rows.get(zone)?.button;
    const target = row?.isConnected ? row : this.parts.list.querySelector<HTMLElement>("[data-zone]");
    target?.focus();
    target?.scrollIntoView({ block: "nearest" });
  }

  #fill(row: Row, zone: Zone, counts: ZoneCount | undefined, step: Step | undefined): void {
    setAttribute(row.swatch, "data-step", String(step ?? -1));
    setAttribute(row.button, "aria-label", zoneInWords(zone, counts));
    setAttribute(row.button, "data-busy", String(busy(counts)));
    const share = occupancy(zone, counts);
    setText(row.note, share === undefined ? typeName(zone.type) : `${typeName(zone.type)}, ${percent(share)} full`);
    for (const kind of ["person", "vehicle"] as const) {
      setText(row[kind], counts ? shown(counts[kind]) : "–");
      row[kind].parentElement?.classList.toggle("none", !counts || counts[kind].count === 0 || !known(counts[kind]));
    }
  }

  /** Sorts as soon as rows may swap places: at once at the first numbers, later by itself if not now. */
  #sortSoon(): void {
    clearTimeout(this.#timer);
    const wait = Math.max(this.#sortedAt, this.#pointerAt) + SORT_EVERY_MS - Date.now();
    if (wait <= 0) this.#sort();
    else this.#timer = setTimeout(() => this.#sortSoon(), wait);
  }

  #sort(): void {
    if (this.#counts.size > 0) this.#sortedAt = Date.now();
    const shown = busiestFirst(this.zones, this.#counts, this.#filter);
    arrange(
      this.parts.list,
      shown.flatMap((zone) => this.#rows.get(zone.id)?.item ?? []),
    );
    this.parts.nothing.hidden = shown.length > 0;
  }

  /** Arrow keys, Home and End go from row to row. */
  #step(event: KeyboardEvent): void {
    const buttons = [...this.parts.list.querySelectorAll<HTMLElement>("[data-zone]")];
    const at = buttons.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  }

  #makeFilters(): void {
    const types = typesOf(this.zones);
    this.parts.filters.hidden = types.length < 2;
    const choices: [string | undefined, string][] = [
      [undefined, "All"],
      ...types.map(([type]): [string, string] => [type, typePlural(type)]),
    ];
    const buttons = choices.map(([type, label]) => {
      const button = element(
        "button",
        { type: "button", class: "chip", "aria-pressed": String(type === undefined) },
        label,
      );
      button.addEventListener("click", () => {
        this.#filter.type = type;
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        this.#sort();
      });
      return button;
    });
    this.parts.filters.replaceChildren(...buttons);
  }
}
