/**
 * The site as a device needs it: rules 1 to 3 of the counting rules for one device.
 *
 * The device predicts the zones in which the system counts it after a fix, and so knows which fixes change counts.
 */
import { accuracyOf, type DevicePosition } from "./positions.js";

export type DeviceKind = "person" | "vehicle";
type Point = readonly [lon: number, lat: number];
type Box = readonly [west: number, south: number, east: number, north: number];
type Properties = Record<string, unknown>;

const EARTH_RADIUS_M = 6_371_008.8;
/** The id of the zone that is the site's boundary. */
export const BOUNDARY = "site";
/** Defaults of the counting rules. */
const HOLD_S = { person: 900, vehicle: 300 };
const LEAVE_MARGIN_M = 15;
const LEAVE_MARGIN_ACC = 1.5;
const MAX_ACCURACY_M = 100;
const MAX_SPEED_MPS = 70;
/** A geometry wider than this crosses the antimeridian, and is refused as in a site file. */
const MAX_WIDTH_DEG = 180;

/** A zone: the rings of all its polygons, and what the counting rules need of it. */
class SiteArea {
  constructor(
    readonly id: string,
    private readonly rings: readonly Point[][],
    private readonly box: Box,
    readonly leaveMarginM: number,
    readonly holdS: number,
  ) {}

  /** Whether the position is inside by the even-odd rule, or on an edge. */
  covers({ lat, lon }: DevicePosition): boolean {
    const [west, south, east, north] = this.box;
    if (!(west <= lon && lon <= east && south <= lat && lat <= north)) return false;
    let inside = false;
    for (const [[x1, y1], [x2, y2]] of edgesOf(this.rings)) {
      if (!(Math.min(y1, y2) <= lat && lat <= Math.max(y1, y2))) continue;
      const side = (x2 - x1) * (lat - y1) - (lon - x1) * (y2 - y1);
      if (side === 0 && Math.min(x1, x2) <= lon && lon <= Math.max(x1, x2)) return true;
      if (y1 > lat !== y2 > lat && side > 0 === y2 > y1) inside = !inside;
    }
    return inside;
  }

  /** Whether the position is at most this far from the zone. */
  isWithin(position: DevicePosition, metres: number): boolean {
    if (this.covers(position)) return true;
    const { lat, lon } = position;
    const [xScale, yScale] = scalesAt(lat);
    const [west, south, east, north] = this.box;
    const dx = Math.max(west - lon, 0, lon - east) * xScale;
    const dy = Math.max(south - lat, 0, lat - north) * yScale;
    if (Math.hypot(dx, dy) > metres) return false;
    const local = ([x, y]: Point): Point => [(x - lon) * xScale, (y - lat) * yScale];
    for (const [start, end] of edgesOf(this.rings)) if (distanceToEdge(local(start), local(end)) <= metres) return true;
    return false;
  }
}

/** The zones of a site for devices of one kind. */
export class SiteAreas {
  readonly #areas = new Map<string, SiteArea>();
  readonly #boundary: SiteArea;
  readonly #leaveMarginAcc: number;
  readonly #maxAccuracyM: number;
  readonly #maxSpeedMps: number;

  /**
   * Takes the retained message of the topic `site`; zones without a valid outline are left out.
   *
   * Throws a `RangeError` if it is not a site file, or its boundary is not a valid outline.
   */
  constructor(geojson: unknown, kind: DeviceKind) {
    const features = asObject(geojson).features;
    if (!Array.isArray(features)) throw new RangeError("is not a GeoJSON FeatureCollection");
    const found = features.map(asObject);
    const boundaries = found.filter((feature) => propertiesOf(feature).role === "site");
    const [boundary] = boundaries;
    if (boundary === undefined || boundaries.length !== 1)
      throw new RangeError(`has ${boundaries.length} features with the role site`);
    const site = propertiesOf(boundary);
    const marginM = amount(site.leave_margin_m, LEAVE_MARGIN_M);
    const holdS = ofKind(site, "hold_s", kind, HOLD_S[kind]);
    this.#leaveMarginAcc = amount(site.leave_margin_acc, LEAVE_MARGIN_ACC);
    this.#maxAccuracyM = amount(site.max_accuracy_m, MAX_ACCURACY_M);
    this.#maxSpeedMps = ofKind(site, "max_speed_mps", kind, MAX_SPEED_MPS);
    this.#boundary = new SiteArea(BOUNDARY, ...outlineOf(boundary), marginM, holdS);
    this.#areas.set(BOUNDARY, this.#boundary);
    for (const feature of found) {
      const zone = propertiesOf(feature);
      const id = zone.id;
      if (zone.role !== "zone" || typeof id !== "string") continue;
      let outline: ReturnType<typeof outlineOf>;
      try {
        outline = outlineOf(feature);
      } catch {
        continue;
      }
      const ownMarginM = amount(zone.leave_margin_m, marginM);
      this.#areas.set(id, new SiteArea(id, ...outline, ownMarginM, ofKind(zone, "hold_s", kind, holdS)));
    }
  }

  /** Whether a fix only ends memberships (verdict `inaccurate`). */
  isCoarse(position: DevicePosition): boolean {
    return accuracyOf(position) > this.#maxAccuracyM;
  }

  /** Whether a device would be too fast between two positions (verdict `implausible`). */
  isImplausible(before: DevicePosition, position: DevicePosition): boolean {
    const limitM = this.#maxSpeedMps * (position.t - before.t) + accuracyOf(position) + accuracyOf(before);
    return distanceM(before, position) > limitM;
  }

  /**
   * The zones that count a device after a fix; empty where the device is off site, else `site` is among them.
   *
   * @param before ids of the zones before the fix
   */
  move(before: ReadonlySet<string>, position: DevicePosition): Set<string> {
    const accM = accuracyOf(position);
    const after = new Set<string>();
    if (this.isCoarse(position)) {
      if (!this.#boundary.isWithin(position, 2 * accM)) return after;
      for (const id of before) if (this.#areas.get(id)?.isWithin(position, 2 * accM)) after.add(id);
      return after;
    }
    const reachM = accM ? this.#leaveMarginAcc * accM : Number.POSITIVE_INFINITY;
    for (const area of this.#areas.values()) {
      const isMember = before.has(area.id);
      const counts = isMember ? area.isWithin(position, Math.min(area.leaveMarginM, reachM)) : area.covers(position);
      if (counts) after.add(area.id);
    }
    return after.has(BOUNDARY) ? after : new Set();
  }

  /** Whether a position may be on the site, or within this distance of it. */
  isNear(position: DevicePosition, metres: number): boolean {
    return this.#boundary.isWithin(position, metres + 2 * accuracyOf(position));
  }

  /** Seconds for which a device in these zones stays present without a fix. */
  holdS(zones: Iterable<string>): number {
    return Math.max(0, ...[...zones].map((id) => this.#areas.get(id)?.holdS ?? 0));
  }
}

/** The distance of two positions, in the plane at the latitude of the second. */
export function distanceM(one: DevicePosition, other: DevicePosition): number {
  const [xScale, yScale] = scalesAt(other.lat);
  return Math.hypot((one.lon - other.lon) * xScale, (one.lat - other.lat) * yScale);
}

/** Metres per degree of longitude and of latitude. */
function scalesAt(lat: number): [number, number] {
  const yScale = (EARTH_RADIUS_M * Math.PI) / 180;
  return [yScale * Math.cos((lat * Math.PI) / 180), yScale];
}

/** The distance of the origin to the edge between two points. */
function distanceToEdge([x1, y1]: Point, [x2, y2]: Point): number {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length2 = dx * dx + dy * dy;
  const share = length2 === 0 ? 0 : Math.min(1, Math.max(0, -(x1 * dx + y1 * dy) / length2));
  return Math.hypot(x1 + share * dx, y1 + share * dy);
}

function* edgesOf(rings: readonly Point[][]): Generator<[Point, Point]> {
  for (const ring of rings) for (let i = 1; i < ring.length; i++) yield [ring[i - 1] as Point, ring[i] as Point];
}

function asObject(value: unknown): Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Properties) : {};
}

function propertiesOf(feature: Properties): Properties {
  return asObject(feature.properties);
}

function outlineOf(feature: Properties): [Point[][], Box] {
  const { type, coordinates } = asObject(feature.geometry);
  if (type !== "Polygon" && type !== "MultiPolygon") throw new RangeError("has no Polygon or MultiPolygon");
  const rings = (type === "Polygon" ? [coordinates] : listOf(coordinates))
    .flatMap(listOf)
    .map((ring) => listOf(ring).map(pointOf));
  let [west, south, east, north] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    const [first, last] = [ring[0], ring.at(-1)];
    if (first === undefined || last === undefined || first[0] !== last[0] || first[1] !== last[1])
      throw new RangeError("has a ring that is not closed");
    for (const [x, y] of ring) {
      [west, east] = [Math.min(west, x), Math.max(east, x)];
      [south, north] = [Math.min(south, y), Math.max(north, y)];
    }
  }
  if (rings.length === 0) throw new RangeError("has no rings");
  if (east - west > MAX_WIDTH_DEG) throw new RangeError("crosses the antimeridian");
  return [rings, [west, south, east, north]];
}

function listOf(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new RangeError("has no valid coordinates");
  return value;
}

function pointOf(value: unknown): Point {
  const [x, y] = listOf(value);
  if (!Number.isFinite(x) || !Number.isFinite(y)) throw new RangeError("has no valid coordinates");
  return [x as number, y as number];
}

function ofKind(properties: Properties, name: string, kind: DeviceKind, fallback: number): number {
  const value = properties[name];
  return amount(typeof value === "object" ? asObject(value)[kind] : value, fallback);
}

/** A number of 0 or more; the default in place of anything else. */
function amount(value: unknown, fallback: number): number {
  return typeof value === "number" && value >= 0 && value < Infinity ? value : fallback;
}
