/** What the server says: shapes of the HTTP interface, and the requests for them. */

export type Kind = "person" | "vehicle";
export const KINDS: readonly Kind[] = ["person", "vehicle"];

/**
 * How a count is told to those who may not see it as it is: rounded; that it is small; or not at all,
 * since with the others it would give a small one away.
 */
export type Told = "rounded" | "hidden" | "withheld";

/** A zone's count of one kind, and what surrounds it. */
export interface Numbers {
  count: number; // 0 where it is hidden or withheld
  low: number;
  high: number;
  stale: number;
  told?: Told; // undefined: it is as it is
  below?: number; // what a hidden one is less than
}

/** Is there a number at all? */
export const known = ({ told }: Pick<Numbers, "told">): boolean => told === undefined || told === "rounded";

export interface ZoneCount {
  zone: string;
  person: Numbers;
  vehicle: Numbers;
}

/** The instant that numbers hold at, and how old they were when they were sent. */
export interface Moment {
  at: number; // Unix milliseconds
  ageMs: number | undefined;
}

/** Counts of some or all zones at an instant; always absolute numbers. */
export interface Counts extends Moment {
  zones: ZoneCount[];
  fresh: number; // partitions that are up to date, of `total`
  total: number;
}

export interface SiteName {
  id: string;
  name: string;
}

export type Ring = [number, number][];
export type Polygons = Ring[][];

export interface Zone {
  id: string;
  name: string;
  type: string;
  capacity: Partial<Record<Kind, number>>;
  polygons: Polygons; // lon, lat in degrees
}

export interface Site {
  id: string;
  name: string;
  timezone: string | undefined;
  freshSeconds: number;
  attribution: string | undefined;
  boundary: Zone;
  zones: Zone[]; // without the boundary
}

/** A row of the history: the numbers over one step that ends at `at`. */
export interface HistoryRow {
  at: number; // Unix milliseconds
  person: Spread;
  vehicle: Spread;
}

export interface Spread {
  count: number;
  min: number;
  max: number;
  mean: number;
  told?: Told;
}

/** The server answered with an error, or with something that isn't what it should be. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const asObject = (value: unknown): Json => (isObject(value) ? value : {});
const asArray = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
const asNumber = (value: unknown, otherwise = 0): number =>
  typeof value === "number" && Number.isFinite(value) ? value : otherwise;
const asText = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);

/** RFC 3339 text or Unix seconds → Unix milliseconds; NaN where it is neither. */
export function parseTime(value: unknown): number {
  if (typeof value === "number") return value * 1000;
  return typeof value === "string" ? Date.parse(value) : Number.NaN;
}

/** `"<5"` → hidden, below 5; null → withheld; a number without what surrounds it → rounded. */
function parseTold(count: unknown, around: unknown): Pick<Numbers, "told" | "below"> {
  if (typeof count === "string") return { told: "hidden", below: asNumber(Number(count.replace("<", "")), 1) };
  if (count === null) return { told: "withheld" };
  return around === null ? { told: "rounded" } : {};
}

function parseNumbers(value: unknown): Numbers {
  const from = asObject(value);
  const count = asNumber(from.count);
  return {
    ...parseTold(from.count, from.low),
    count,
    low: asNumber(from.low, count),
    high: asNumber(from.high, count),
    stale: asNumber(from.stale),
  };
}

/** `at` and `age_s` of a message; undefined where there are no numbers yet. */
export function parseMoment(value: unknown): Moment | undefined {
  const from = asObject(value);
  const at = parseTime(from.at);
  const ageS = from.age_s;
  return Number.isNaN(at) ? undefined : { at, ageMs: typeof ageS === "number" ? ageS * 1000 : undefined };
}

export function parseCounts(value: unknown): Counts {
  const from = asObject(value);
  const moment = parseMoment(value);
  if (!moment) throw new ApiError(0, "The counts carry no time.");
  const total = asNumber(from.partitions_total);
  return {
    ...moment,
    zones: asArray(from.zones).map((entry) => {
      const zone = asObject(entry);
      return {
        zone: asText(zone.zone) ?? "",
        person: parseNumbers(zone.person),
        vehicle: parseNumbers(zone.vehicle),
      };
    }),
    fresh: asNumber(from.partitions_fresh, total),
    total,
  };
}

function parsePolygons(value: unknown): Polygons {
  const geometry = asObject(value);
  const coordinates = asArray(geometry.coordinates);
  if (geometry.type === "Polygon") return [coordinates as Ring[]];
  return geometry.type === "MultiPolygon" ? (coordinates as Polygons) : [];
}

function parseZone(feature: Json): Zone {
  const properties = asObject(feature.properties);
  const id = asText(properties.id) ?? "";
  const capacity: Zone["capacity"] = {};
  for (const kind of KINDS) {
    const places = asNumber(asObject(properties.capacity)[kind]);
    if (places > 0) capacity[kind] = places;
  }
  return {
    id,
    name: asText(properties.name) ?? id,
    type: asText(properties.type) ?? "area",
    capacity,
    polygons: parsePolygons(feature.geometry),
  };
}

/** The site's FeatureCollection → what the page needs of it. The boundary's zone has the id `site`. */
export function parseSite(value: unknown): Site {
  const collection = asObject(value);
  const features = asArray(collection.features).filter(isObject);
  const role = (feature: Json): unknown => asObject(feature.properties).role;
  const own = features.find((feature) => role(feature) === "site");
  if (!own) throw new ApiError(0, "The site file has no boundary (a feature with the role “site”).");
  const properties = asObject(own.properties);
  const boundary = parseZone(own);
  return {
    id: boundary.id,
    name: boundary.name,
    timezone: asText(properties.timezone),
    freshSeconds: asNumber(properties.fresh_s, 120),
    attribution: asText(properties.attribution) ?? asText(collection.attribution),
    boundary: { ...boundary, id: "site", type: "site" },
    zones: features.filter((feature) => role(feature) === "zone").map(parseZone),
  };
}

function parseSpread(value: unknown): Spread {
  const from = asObject(value);
  const mean = asNumber(from.mean, asNumber(from.count));
  const { told } = parseTold(from.count, from.mean);
  return {
    ...(told ? { told } : {}),
    count: asNumber(from.count, mean),
    min: asNumber(from.min, mean),
    max: asNumber(from.max, mean),
    mean,
  };
}

export function parseHistory(value: unknown): HistoryRow[] {
  return asArray(asObject(value).rows)
    .map((entry) => {
      const row = asObject(entry);
      return {
        at: parseTime(row.at),
        person: parseSpread(row.person),
        vehicle: parseSpread(row.vehicle),
      };
    })
    .filter((row) => !Number.isNaN(row.at));
}

/** The server's interface. Its clock, not the browser's, says how old numbers are. */
export class Api {
  #skewMs = 0;

  constructor(private readonly base: string) {}

  /** The server's time in Unix milliseconds, as far as it has told. */
  now(): number {
    return Date.now() + this.#skewMs;
  }

  /** Numbers of the time `at` were `ageMs` old when the server sent them: so its clock says `at + ageMs`. */
  learnClock({ at, ageMs }: Moment): void {
    if (ageMs !== undefined) this.#skewMs = at + ageMs - Date.now();
  }

  async sites(): Promise<SiteName[]> {
    const answer = asObject(await this.#get("v1/sites"));
    return asArray(answer.sites).map((entry) => {
      const site = asObject(entry);
      const id = asText(site.id) ?? "";
      return { id, name: asText(site.name) ?? id };
    });
  }

  async site(site: string): Promise<Site> {
    return parseSite(await this.#get(this.#sitePath(site)));
  }

  /** Rows of a zone's history between two times (Unix milliseconds), one every `stepSeconds`. */
  async history(site: string, zone: string, from: number, to: number, stepSeconds: number): Promise<HistoryRow[]> {
    const query = new URLSearchParams({
      from: new Date(from).toISOString(),
      to: new Date(to).toISOString(),
      step: String(stepSeconds),
    });
    const path = `${this.#sitePath(site)}/zones/${encodeURIComponent(zone)}/history?${query}`;
    return parseHistory(await this.#get(path));
  }

  streamUrl(site: string): string {
    return new URL(`${this.#sitePath(site)}/stream?every=0.5`, this.base).href;
  }

  #sitePath(site: string): string {
    return `v1/sites/${encodeURIComponent(site)}`;
  }

  async #get(path: string): Promise<unknown> {
    const response = await fetch(new URL(path, this.base), {
      headers: { accept: "application/json" },
      cache: "no-store",
      signal: AbortSignal.timeout(15_000),
    });
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) {
      const problem = asObject(body);
      const said = asText(problem.detail) ?? asText(problem.title);
      throw new ApiError(response.status, said ?? `The server answered ${response.status}.`);
    }
    return body;
  }
}
