import { describe, expect, it } from "vitest";
import { parseCounts, parseHistory, parseSite, parseTime, pathTo } from "./api";

const square = [
  [
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 0],
  ],
];

describe("parseTime", () => {
  it("is undefined while there are no counts", () => {
    expect(parseTime({ at: null, age_s: null })).toBeUndefined();
    expect(parseTime({ at: "1970-01-01T00:00:01Z", age_s: 0.25 })).toEqual({ at: 1000, ageMs: 250 });
  });
});

describe("parseCounts", () => {
  const none = { count: 0, low: 0, high: 0, stale: 0 };
  const body = { site: "ul", at: "1970-01-01T00:00:10Z", age_s: 0.1, partitions_fresh: 15, partitions_total: 16 };

  it("keeps counts, their time and the partitions up to date", () => {
    const library = { zone: "library", person: { count: 4, low: 3, high: 6, stale: 1 }, vehicle: none };
    const counts = parseCounts({ ...body, zones: [library] });
    expect(counts).toMatchObject({ at: 10_000, ageMs: 100, fresh: 15, total: 16 });
    expect(counts.zones).toEqual([library]);
  });

  it("distinguishes rounded, hidden and withheld counts", () => {
    const bounds = { low: null, high: null, stale: null };
    const parsed = (count: number | string | null) =>
      parseCounts({ ...body, zones: [{ zone: "z", person: { count, ...bounds }, vehicle: none }] }).zones[0]?.person;
    expect(parsed(410)).toEqual({ disclosure: "rounded", count: 410, low: 410, high: 410, stale: 0 });
    expect(parsed("<5")).toEqual({ disclosure: "hidden", below: 5, count: 0, low: 0, high: 0, stale: 0 });
    expect(parsed(null)).toMatchObject({ disclosure: "withheld", count: 0 });
  });
});

describe("parseSite", () => {
  const boundary = {
    type: "Feature" as const,
    properties: { role: "site", id: "ul", name: "Limerick", timezone: "Europe/Dublin" },
    geometry: { type: "Polygon", coordinates: square },
  };
  const lot = {
    type: "Feature" as const,
    properties: { role: "zone", id: "lot", type: "car_park", capacity: { vehicle: 20, person: null } },
    geometry: { type: "MultiPolygon", coordinates: [square] },
  };

  it("separates the boundary from the zones, with either type of polygon", () => {
    const site = parseSite({ type: "FeatureCollection", features: [lot, boundary] });
    expect(site).toMatchObject({ id: "ul", timezone: "Europe/Dublin", freshSeconds: 120 });
    expect(site.boundary).toMatchObject({ id: "site", polygons: [square] });
    expect(site.zones).toEqual([
      { id: "lot", name: "lot", type: "car_park", capacity: { vehicle: 20 }, polygons: [square] },
    ]);
  });

  it("rejects a site without a boundary", () => {
    expect(() => parseSite({ type: "FeatureCollection", features: [lot] })).toThrow("boundary");
  });
});

describe("parseHistory", () => {
  it("has the statistics of each row, or the reason why they are not shown", () => {
    const exact = { count: 2, mean: 2.5, min: 1, max: 4 };
    const hidden = { count: "<5", mean: null, min: null, max: null };
    const row = { at: "1970-01-01T00:00:01Z", person: exact, vehicle: hidden };
    const [parsed] = parseHistory({
      site: "ul",
      zone: "z",
      from: row.at,
      to: row.at,
      step_s: 10,
      version: null,
      corrected: null,
      rows: [row],
    });
    expect(parsed).toEqual({
      at: 1000,
      person: { mean: 2.5, min: 1, max: 4 },
      vehicle: { disclosure: "hidden", mean: 0, min: 0, max: 0 },
    });
  });
});

describe("pathTo", () => {
  it("fills in and escapes parameters", () => {
    expect(pathTo("/v1/sites/{site}", { site: "a/b" })).toBe("v1/sites/a%2Fb");
  });
});
