/** A zone's class on the colour scale: its share of the capacity, or its count relative to the busiest zone. */

import { isNumber, KINDS, type Kind, type Zone, type ZoneCounts } from "./api";

/** What the colours show: how full a zone is, or how many people or vehicles are in it. */
export type Mode = "full" | Kind;

/**
 * Class of a zone: 0 is empty, 1 to 5 are fifths of the scale, 6 is above it.
 * `NEUTRAL` is a zone outside the scale: it has no capacity, or its count is not shown.
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
  selected: string;
  neutral: string;
  /** By class, `EMPTY` to `OVER`. They differ in lightness, so they work for every kind of colour vision. */
  steps: readonly [string, string, string, string, string, string, string];
}

export const LIGHT: Palette = {
  ground: "#e6ebe9",
  paper: "#f7f9f7",
  boundary: "#8fa3a4",
  edge: "#7d9294",
  selected: "#c2410c",
  neutral: "#e9edeb",
  steps: ["#f0f4f0", "#bfe1d2", "#8ccabf", "#4ea7ae", "#2a7b98", "#24507d", "#3b1d5c"],
};

export const DARK: Palette = {
  ground: "#0d1315",
  paper: "#151d20",
  boundary: "#516468",
  edge: "#0d1315",
  selected: "#ffb066",
  neutral: "#222b2e",
  steps: ["#1d282b", "#204650", "#26687a", "#36909a", "#63b9a4", "#a9dda0", "#fbf3b0"],
};

export const paletteFor = (dark: boolean): Palette => (dark ? DARK : LIGHT);

/** The kind that a zone is mainly used by. */
export const mainKind = (zone: Zone): Kind => (zone.type === "car_park" ? "vehicle" : "person");

/** Share of the capacity that is used, of the kind with the larger share; undefined without a capacity or a count. */
export function occupancy(zone: Zone, counts: ZoneCounts | undefined): number | undefined {
  let share: number | undefined;
  for (const kind of KINDS) {
    const places = zone.capacity[kind];
    if (places === undefined || !counts || !isNumber(counts[kind])) continue;
    share = Math.max(share ?? 0, counts[kind].count / places);
  }
  return share;
}

/** Share (1 = the whole scale) → class. */
export function stepOf(share: number): Step {
  if (share <= 0) return EMPTY;
  return share > 1 ? OVER : Math.min(FIFTHS, Math.floor(share * FIFTHS) + 1);
}

/** The end of a scale for counts: the smallest of 5, 10, 25, 50, 100, 250 … that is at least `busiest`. */
export function niceEnd(busiest: number): number {
  for (let decade = 1; ; decade *= 10) {
    for (const factor of [5, 10, 25]) if (busiest <= factor * decade) return factor * decade;
  }
}

/** `full` if at least half of the zones have a capacity, otherwise people. */
export function defaultMode(zones: readonly Zone[]): Mode {
  const sized = zones.filter((zone) => Object.keys(zone.capacity).length > 0).length;
  return sized * 2 >= zones.length && sized > 0 ? "full" : "person";
}

export const modesOf = (zones: readonly Zone[]): Mode[] =>
  zones.some((zone) => Object.keys(zone.capacity).length > 0) ? ["full", "person", "vehicle"] : ["person", "vehicle"];

/** The class of every zone by id, and the end of the scale: a count, or 1 for shares of the capacity. */
export function steps(
  zones: readonly Zone[],
  counts: ReadonlyMap<string, ZoneCounts>,
  mode: Mode,
): { end: number; byZone: Map<string, Step> } {
  const byZone = new Map<string, Step>();
  if (mode === "full") {
    for (const zone of zones) {
      const share = occupancy(zone, counts.get(zone.id));
      byZone.set(zone.id, share === undefined ? NEUTRAL : stepOf(share));
    }
    return { end: 1, byZone };
  }
  const count = (zone: Zone): number => counts.get(zone.id)?.[mode].count ?? 0;
  const end = niceEnd(zones.reduce((max, zone) => Math.max(max, count(zone)), 0));
  for (const zone of zones) {
    const numbers = counts.get(zone.id)?.[mode];
    byZone.set(zone.id, numbers && !isNumber(numbers) ? NEUTRAL : stepOf(count(zone) / end));
  }
  return { end, byZone };
}
