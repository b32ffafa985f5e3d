/** The HTTP API: requests, and the part of their responses that the pages use. */

import type { paths } from "./openapi";

type Method = "get" | "post" | "delete";
type Responses<Operation> = Operation extends { responses: infer Found } ? Found[keyof Found] : never;
/** The body of a path's successful response. */
export type Body<Path extends keyof paths, By extends Method = "get"> =
  Responses<paths[Path][By]> extends { content: infer Content } ? Content[keyof Content] : never;

type CountsBody = Body<"/v1/sites/{site}/counts">;
type KindCountBody = CountsBody["zones"][number]["person"];
type SiteBody = Body<"/v1/sites/{site}">;
type HistoryBody = Body<"/v1/sites/{site}/zones/{zone}/history">;
type KindHistoryBody = HistoryBody["rows"][number]["person"];
export type SiteSummary = Body<"/v1/sites">["sites"][number];

export type Kind = "person" | "vehicle";
export const KINDS: readonly Kind[] = ["person", "vehicle"];

/**
 * How a count is protected from readers who may not see exact counts: it is rounded, hidden because it is small,
 * or withheld because together with other counts it would reveal a small one.
 */
export type Disclosure = "rounded" | "hidden" | "withheld";

/** A zone's count of one kind, with its bounds. */
export interface KindCount {
  count: number; // 0 if hidden or withheld
  low: number;
  high: number;
  stale: number;
  disclosure?: Disclosure; // undefined: the count is exact
  below?: number; // upper bound of a hidden count, exclusive
}

/** Whether the count is a number, exact or rounded. */
export const isNumber = ({ disclosure }: Pick<KindCount, "disclosure">): boolean =>
  disclosure === undefined || disclosure === "rounded";

export interface ZoneCounts {
  zone: string;
  person: KindCount;
  vehicle: KindCount;
}

/** The time that counts are valid at, and their age when the server sent them. */
export interface CountsTime {
  at: number; // Unix milliseconds
  ageMs: number;
}

/** Counts of some or all zones at one time, always absolute. */
export interface Counts extends CountsTime {
  zones: ZoneCounts[];
  fresh: number; // partitions that are up to date, of `total`
  total: number;
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

/** Counts over one step of the history, which ends at `at`. */
export interface HistoryRow {
  at: number; // Unix milliseconds
  person: KindHistory;
  vehicle: KindHistory;
}

export interface KindHistory {
  min: number;
  max: number;
  mean: number;
  disclosure?: Disclosure;
}

/** The properties of a site file's feature, see docs/reference/site-file.md; OpenAPI leaves them open. */
interface FeatureProperties {
  role: string;
  id: string;
  name?: string;
  type?: string;
  capacity?: Partial<Record<Kind, number | null>> | null;
  timezone?: string;
  fresh_s?: number;
  attribution?: string;
}

type FeatureGeometry = { type: "Polygon"; coordinates: Ring[] } | { type: "MultiPolygon"; coordinates: Polygons };

/** The server responded with an error, or did not respond as documented. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** `"<5"` → hidden, below 5; null → withheld; a number without its bounds → rounded. */
function parseDisclosure(count: KindCountBody["count"], bound: number | null): Pick<KindCount, "disclosure" | "below"> {
  if (typeof count === "string") return { disclosure: "hidden", below: Number(count.replace("<", "")) };
  if (count === null) return { disclosure: "withheld" };
  return bound === null ? { disclosure: "rounded" } : {};
}

function parseKindCount(body: KindCountBody): KindCount {
  const count = typeof body.count === "number" ? body.count : 0;
  return {
    ...parseDisclosure(body.count, body.low),
    count,
    low: body.low ?? count,
    high: body.high ?? count,
    stale: body.stale ?? 0,
  };
}

/** A ping of the stream; without values while there are no counts yet. */
export type PingBody = { [Field in "at" | "age_s"]: CountsBody[Field] | null };

export function parseTime({ at, age_s }: PingBody): CountsTime | undefined {
  return at === null || age_s === null ? undefined : { at: Date.parse(at), ageMs: age_s * 1000 };
}

export function parseCounts(body: CountsBody): Counts {
  return {
    at: Date.parse(body.at),
    ageMs: body.age_s * 1000,
    zones: body.zones.map(({ zone, person, vehicle }) => ({
      zone,
      person: parseKindCount(person),
      vehicle: parseKindCount(vehicle),
    })),
    fresh: body.partitions_fresh,
    total: body.partitions_total,
  };
}

function parseZone(properties: FeatureProperties, geometry: FeatureGeometry): Zone {
  const { id } = properties;
  const capacity: Zone["capacity"] = {};
  for (const kind of KINDS) {
    const places = properties.capacity?.[kind];
    if (places) capacity[kind] = places;
  }
  return {
    id,
    name: properties.name ?? id,
    type: properties.type ?? "area",
    capacity,
    polygons: geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates,
  };
}

/** The site's FeatureCollection → the parts that the pages use. The boundary's zone has the id `site`. */
export function parseSite(body: SiteBody): Site {
  const features = body.features.map(({ properties, geometry }) => ({
    properties: properties as unknown as FeatureProperties,
    geometry: geometry as FeatureGeometry,
  }));
  const own = features.find(({ properties }) => properties.role === "site");
  if (!own) throw new ApiError(0, "The site file has no boundary (a feature with the role “site”).");
  const boundary = parseZone(own.properties, own.geometry);
  return {
    id: boundary.id,
    name: boundary.name,
    timezone: own.properties.timezone,
    freshSeconds: own.properties.fresh_s ?? 120,
    attribution: own.properties.attribution ?? (body.attribution as string | undefined),
    boundary: { ...boundary, id: "site", type: "site" },
    zones: features
      .filter(({ properties }) => properties.role === "zone")
      .map(({ properties, geometry }) => parseZone(properties, geometry)),
  };
}

function parseKindHistory(body: KindHistoryBody): KindHistory {
  const { disclosure } = parseDisclosure(body.count, body.mean);
  const mean = body.mean ?? (typeof body.count === "number" ? body.count : 0);
  return { ...(disclosure ? { disclosure } : {}), min: body.min ?? mean, max: body.max ?? mean, mean };
}

export function parseHistory(body: HistoryBody): HistoryRow[] {
  return body.rows.map(({ at, person, vehicle }) => ({
    at: Date.parse(at),
    person: parseKindHistory(person),
    vehicle: parseKindHistory(vehicle),
  }));
}

/** A path of the API with its parameters filled in, relative to the server's address. */
export function pathTo(path: keyof paths, parameters: Record<string, string> = {}): string {
  return path.slice(1).replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(parameters[name] ?? ""));
}

/** Sends a request; throws `ApiError` unless it succeeds. */
export async function request(url: URL, options: RequestInit = {}): Promise<Response> {
  const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(15_000), ...options });
  if (response.ok) return response;
  const problem: { title?: string; detail?: string } | undefined = await response.json().catch(() => undefined);
  throw new ApiError(
    response.status,
    problem?.detail ?? problem?.title ?? `The server responded with status ${response.status}.`,
  );
}

/** The server's API. The age of counts follows the server's clock, not the browser's. */
export class Api {
  #skewMs = 0;

  constructor(private readonly base: string) {}

  /** The server's time in Unix milliseconds, once it is known; until then the browser's. */
  now(): number {
    return Date.now() + this.#skewMs;
  }

  /** Counts of the time `at` were `ageMs` old when the server sent them, so its clock showed `at + ageMs`. */
  setClock({ at, ageMs }: CountsTime): void {
    this.#skewMs = at + ageMs - Date.now();
  }

  async sites(): Promise<SiteSummary[]> {
    return (await this.#get("/v1/sites")).sites;
  }

  async site(site: string): Promise<Site> {
    return parseSite(await this.#get("/v1/sites/{site}", { site }));
  }

  /** Rows of a zone's history between two times (Unix milliseconds), one every `stepSeconds`. */
  async history(site: string, zone: string, from: number, to: number, stepSeconds: number): Promise<HistoryRow[]> {
    const query = { from: new Date(from).toISOString(), to: new Date(to).toISOString(), step: String(stepSeconds) };
    return parseHistory(await this.#get("/v1/sites/{site}/zones/{zone}/history", { site, zone }, query));
  }

  streamUrl(site: string): string {
    return new URL(`${pathTo("/v1/sites/{site}", { site })}/stream?every=0.5`, this.base).href;
  }

  async #get<Path extends keyof paths>(
    path: Path,
    parameters: Record<string, string> = {},
    query: Record<string, string> = {},
  ): Promise<Body<Path>> {
    const url = new URL(pathTo(path, parameters), this.base);
    url.search = new URLSearchParams(query).toString();
    return (await request(url, { headers: { accept: "application/json" } })).json();
  }
}
