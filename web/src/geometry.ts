/** Planar geometry of zones in degrees, accurate enough at the size of a campus. */

import type { Polygons, Ring, Zone } from "./api";

export type Box = [west: number, south: number, east: number, north: number];

export function boxOf(polygons: Polygons): Box {
  const box: Box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [outer] of polygons) {
    for (const [lon, lat] of outer ?? []) {
      box[0] = Math.min(box[0], lon);
      box[1] = Math.min(box[1], lat);
      box[2] = Math.max(box[2], lon);
      box[3] = Math.max(box[3], lat);
    }
  }
  return box;
}

/** A box around another, wider by `share` of its size on every side. */
export function widen([west, south, east, north]: Box, share: number): Box {
  const dx = (east - west) * share;
  const dy = (north - south) * share;
  return [west - dx, south - dy, east + dx, north + dy];
}

/** Twice the signed area of a ring (shoelace formula). */
function doubleArea(ring: Ring): number {
  let sum = 0;
  for (let i = 0; i + 1 < ring.length; i += 1) {
    const [x0, y0] = ring[i] as [number, number];
    const [x1, y1] = ring[i + 1] as [number, number];
    sum += x0 * y1 - x1 * y0;
  }
  return sum;
}

const outerArea = (rings: Ring[]): number => Math.abs(doubleArea(rings[0] ?? [])) / 2;

/** Area in square degrees without subtracting holes: for the order of drawing only. */
export const areaOf = (zone: Zone): number => zone.polygons.reduce((sum, rings) => sum + outerArea(rings), 0);

/** Where the horizontal line at `y` crosses the rings: start and end of each piece inside, in pairs. */
function crossings(rings: Ring[], y: number): number[] {
  const xs: number[] = [];
  for (const ring of rings) {
    for (let i = 0; i + 1 < ring.length; i += 1) {
      const [x0, y0] = ring[i] as [number, number];
      const [x1, y1] = ring[i + 1] as [number, number];
      if (y0 > y !== y1 > y) xs.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    }
  }
  return xs.sort((a, b) => a - b);
}

/**
 * A point inside a zone for its label: in the largest polygon, the middle of the longest piece of five horizontal
 * lines around the middle, preferring lines near the middle.
 */
export function anchorOf(zone: Zone): [number, number] {
  const largest = zone.polygons.reduce(
    (best, rings) => (outerArea(rings) > outerArea(best) ? rings : best),
    zone.polygons[0] ?? [],
  );
  const [west, south, east, north] = boxOf([largest]);
  let best: [number, number] = [(west + east) / 2, (south + north) / 2];
  let longest = 0;
  for (const part of [0.5, 0.42, 0.58, 0.3, 0.7]) {
    const y = south + (north - south) * part;
    const xs = crossings(largest, y);
    for (let i = 0; i + 1 < xs.length; i += 2) {
      const [x0, x1] = [xs[i] as number, xs[i + 1] as number];
      if (x1 - x0 > longest * 1.15) {
        longest = x1 - x0;
        best = [(x0 + x1) / 2, y];
      }
    }
  }
  return best;
}
