/** From numbers to the colour of a zone: how full, or how many beside the busiest. */

import { type Kind, known, type Zone, type ZoneCount } from "./api";

/** What the colours mean: how full a zone is, or how many people or vehicles are in it. */
export type Mode = "full" | Kind;

/**
 * Class of a zone: 0 is empty, 1 to 5 are fifths of the scale, 6 is above it.
 * `NEUTRAL` means that the scale says nothing of this zone (it has no capacity, or its number isn't told).
 */
export type Step = number;
export const NEUTRAL: Step = -1;
export const EMPTY: Step = 0;
export const OVER: Step = 6;
const FIFTHS = 5;

export interface Palette {
  ground: string;
  paper: string;
  boundary: string;
  edge: string;
  chosen: string;
  neutral: string;
  /** By class, `EMPTY` to `OVER`. Lightness alone tells them apart, so no kind of colour vision matters. */
  steps: readonly [string, string, string, string, string, string, string];
}

export const LIGHT: Palette = {
  ground: "#e6ebe9",
  paper: "#f7f9f7",
  boundary: "#8fa3a4",
  edge: "#7d9294",
  chosen: "#c2410c",
  neutral: "#e9edeb",
  steps: ["#f0f4f0", "#bfe1d2", "#8ccabf", "#4ea7ae", "#2a7b98", "#24507d", "#3b1d5c"],
};

export const DARK: Palette = {
  ground: "#0d1315",
  paper: "#151d20",
  boundary: "#516468",
  edge: "#0d1315",
  chosen: "#ffb066",
  neutral: "#222b2e",
  steps: ["#1d282b", "#204650", "#26687a", "#36909a", "#63b9a4", "#a9dda0", "#fbf3b0"],
};

export const paletteFor = (dark: boolean): Palette => (dark ? DARK : LIGHT);

/** The kind that a zone is mainly about. */
export const mainKind = (zone: Zone): Kind => (zone.type === "car_park" ? "vehicle" : "person");

/** Share of the capacity that is taken, of the kind with the larger share; undefined without capacity or number. */
export function occupancy(zone: Zone, counts: ZoneCount | undefined): number | undefined {
  let share: number | undefined;
  for (const kind of ["person", "vehicle"] as const) {
    const places = zone.capacity[kind];
    if (places === undefined || (counts && !known(counts[kind]))) continue;
    share = Math.max(share ?? 0, (counts?.[kind].count ?? 0) / places);
  }
  return share;
}

/** Share (1 = the whole scale) → class. */
export function stepOf(share: number): Step {
  if (share <= 0) return EMPTY;
  return share > 1 ? OVER : Math.min(FIFTHS, Math.floor(share * FIFTHS) + 1);
}

/** The end of a scale for counts: the smallest of 5, 10, 25, 50, 100, 250 … that isn't below `busiest`. */
export function niceEnd(busiest: number): number {
  for (let decade = 1; ; decade *= 10) {
    for (const factor of [5, 10, 25]) if (busiest <= factor * decade) return factor * decade;
  }
}

/** `full` where most zones say how much they hold, else people. */
export function defaultMode(zones: readonly Zone[]): Mode {
  const sized = zones.filter((zone) => Object.keys(zone.capacity).length > 0).length;
  return sized * 2 >= zones.length && sized > 0 ? "full" : "person";
}

export const modesOf = (zones: readonly Zone[]): Mode[] =>
  zones.some((zone) => Object.keys(zone.capacity).length > 0) ? ["full", "person", "vehicle"] : ["person", "vehicle"];

/** The class of every zone, and the end of the scale where it counts heads (1 where it tells shares). */
export function steps(
  zones: readonly Zone[],
  counts: ReadonlyMap<string, ZoneCount>,
  mode: Mode,
): { end: number; of: Map<string, Step> } {
  const of = new Map<string, Step>();
  if (mode === "full") {
    for (const zone of zones) {
      const share = occupancy(zone, counts.get(zone.id));
      of.set(zone.id, share === undefined ? NEUTRAL : stepOf(share));
    }
    return { end: 1, of };
  }
  const count = (zone: Zone): number => counts.get(zone.id)?.[mode].count ?? 0;
  const end = niceEnd(zones.reduce((most, zone) => Math.max(most, count(zone)), 0));
  for (const zone of zones) {
    const numbers = counts.get(zone.id)?.[mode];
    of.set(zone.id, numbers && !known(numbers) ? NEUTRAL : stepOf(count(zone) / end));
  }
  return { end, of };
}
