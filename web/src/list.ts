/** The list of zones, busiest first. */

import { isNumber, KINDS, type Zone, type ZoneCounts } from "./api";
import { element, icon, setAttribute, setText } from "./element";
import { formatCount, percent, typeName, typePlural } from "./format";
import { occupancy, type Step } from "./scale";

type CountsByZone = ReadonlyMap<string, ZoneCounts>;

/** The zones to show. */
export interface ZoneFilter {
  type: string | undefined;
  words: string;
}

const sumOf = (counts: ZoneCounts | undefined): number => (counts ? counts.person.count + counts.vehicle.count : 0);

/** The zones that pass the filter, those with the most people and vehicles first, then by name. */
export function busiestFirst(zones: readonly Zone[], counts: CountsByZone, filter: ZoneFilter): Zone[] {
  const words = filter.words.trim().toLocaleLowerCase("en");
  return zones
    .filter((zone) => filter.type === undefined || zone.type === filter.type)
    .filter((zone) => zone.name.toLocaleLowerCase("en").includes(words))
    .sort((a, b) => sumOf(counts.get(b.id)) - sumOf(counts.get(a.id)) || a.name.localeCompare(b.name, "en"));
}

/** The types of the zones with their number of zones, the most frequent first. */
export function typesOf(zones: readonly Zone[]): [type: string, zones: number][] {
  const numbers = new Map<string, number>();
  for (const zone of zones) numbers.set(zone.type, (numbers.get(zone.type) ?? 0) + 1);
  return [...numbers].sort((a, b) => b[1] - a[1]);
}

/**
 * Puts `items` into the given order without moving the one that has the focus: moving it would lose the focus.
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

interface ZoneRow {
  item: HTMLLIElement;
  button: HTMLButtonElement;
  swatch: HTMLElement;
  note: HTMLElement;
  person: HTMLElement;
  vehicle: HTMLElement;
}

function makeRow(zone: Zone): ZoneRow {
  const swatch = element("span", { class: "swatch" });
  const note = element("span", { class: "row-note" }, typeName(zone.type));
  const person = element("b", {}, "–");
  const vehicle = element("b", {}, "–");
  const button = element(
    "button",
    { type: "button", class: "row", "data-zone": zone.id, "aria-pressed": "false" },
    swatch,
    element("span", { class: "row-text" }, element("span", { class: "row-name" }, zone.name), " ", note, " "),
    element("span", { class: "row-number" }, icon("person"), person, element("span", { class: "unseen" }, " people, ")),
    element(
      "span",
      { class: "row-number" },
      icon("vehicle"),
      vehicle,
      element("span", { class: "unseen" }, " vehicles"),
    ),
  );
  return { item: element("li", {}, button), button, swatch, note, person, vehicle };
}

/** Rows are sorted at most this often, and not under a moving pointer. */
const SORT_INTERVAL_MS = 2_000;

export interface ZoneListElements {
  list: HTMLElement;
  filters: HTMLElement;
  search: HTMLInputElement;
  nothing: HTMLElement;
}

export class ZoneList {
  readonly #rows = new Map<string, ZoneRow>();
  readonly #filter: ZoneFilter = { type: undefined, words: "" };
  #counts: CountsByZone = new Map();
  #sortedAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pointerAt = 0;

  constructor(
    private readonly elements: ZoneListElements,
    private readonly zones: readonly Zone[],
    private readonly choose: (zone: string) => void,
  ) {
    for (const zone of zones) this.#rows.set(zone.id, makeRow(zone));
    elements.list.addEventListener("click", (event) => {
      const button = (event.target as Element).closest<HTMLElement>("[data-zone]");
      if (button?.dataset.zone) this.choose(button.dataset.zone);
    });
    elements.list.addEventListener("keydown", (event) => this.#moveFocus(event));
    elements.list.addEventListener("pointermove", () => (this.#pointerAt = Date.now()));
    elements.search.addEventListener("input", () => {
      this.#filter.words = elements.search.value;
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

  /** Focuses a zone's row, or the first row if the zone isn't shown. */
  focus(zone: string): void {
    const row = this.#rows.get(zone)?.button;
    const target = row?.isConnected ? row : this.elements.list.querySelector<HTMLElement>("[data-zone]");
    target?.focus();
    target?.scrollIntoView({ block: "nearest" });
  }

  #fill(row: ZoneRow, zone: Zone, counts: ZoneCounts | undefined, step: Step | undefined): void {
    setAttribute(row.swatch, "data-step", String(step ?? -1));
    setAttribute(row.button, "data-busy", String(sumOf(counts)));
    const share = occupancy(zone, counts);
    setText(row.note, share === undefined ? typeName(zone.type) : `${typeName(zone.type)}, ${percent(share)} full`);
    for (const kind of KINDS) {
      setText(row[kind], counts ? formatCount(counts[kind]) : "–");
      row[kind].parentElement?.classList.toggle("none", !counts || counts[kind].count === 0 || !isNumber(counts[kind]));
    }
  }

  /** Sorts now, or as soon as `SORT_INTERVAL_MS` has passed. */
  #sortSoon(): void {
    clearTimeout(this.#timer);
    const wait = Math.max(this.#sortedAt, this.#pointerAt) + SORT_INTERVAL_MS - Date.now();
    if (wait <= 0) this.#sort();
    else this.#timer = setTimeout(() => this.#sortSoon(), wait);
  }

  #sort(): void {
    if (this.#counts.size > 0) this.#sortedAt = Date.now();
    const sorted = busiestFirst(this.zones, this.#counts, this.#filter);
    arrange(
      this.elements.list,
      sorted.flatMap((zone) => this.#rows.get(zone.id)?.item ?? []),
    );
    this.elements.nothing.hidden = sorted.length > 0;
  }

  /** Arrow keys, Home and End move from row to row. */
  #moveFocus(event: KeyboardEvent): void {
    const buttons = [...this.elements.list.querySelectorAll<HTMLElement>("[data-zone]")];
    const at = buttons.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  }

  #makeFilters(): void {
    const types = typesOf(this.zones);
    this.elements.filters.hidden = types.length < 2;
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
    this.elements.filters.replaceChildren(...buttons);
  }
}
