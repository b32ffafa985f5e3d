import { describe, expect, it } from "vitest";
import { parseCounts, parseHistory, parseMoment, parseSite, parseTime } from "./api";

const square = [
  [
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 0],
  ],
];

describe("parseTime", () => {
  it("reads RFC 3339 text and Unix seconds", () => {
    expect(parseTime("2026-11-24T13:00:00.500Z")).toBe(Date.UTC(2026, 10, 24, 13, 0, 0, 500));
    expect(parseTime(12.5)).toBe(12_500);
    expect(parseTime(null)).toBeNaN();
  });
});

describe("parseMoment", () => {
  it("says nothing where there are no numbers yet", () => {
    expect(parseMoment({ at: null, age_s: null })).toBeUndefined();
    expect(parseMoment(undefined)).toBeUndefined();
    expect(parseMoment({ at: "1970-01-01T00:00:01Z", age_s: 0.25 })).toEqual({ at: 1000, ageMs: 250 });
  });
});

describe("parseCounts", () => {
  it("keeps absolute numbers and freshness", () => {
    const counts = parseCounts({
      at: "1970-01-01T00:00:10Z",
      age_s: 0.1,
      partitions_fresh: 15,
      partitions_total: 16,
      zones: [{ zone: "library", person: { count: 4, low: 3, high: 6, stale: 1 } }],
    });
    expect(counts).toMatchObject({ at: 10_000, ageMs: 100, fresh: 15, total: 16 });
    expect(counts.zones).toEqual([
      {
        zone: "library",
        person: { count: 4, low: 3, high: 6, stale: 1 },
        vehicle: { count: 0, low: 0, high: 0, stale: 0 },
      },
    ]);
  });

  it("knows what the public is told: rounded, hidden, withheld", () => {
    const around = { low: null, high: null, stale: null };
    const told = (count: unknown) =>
      parseCounts({ at: 1, zones: [{ zone: "z", person: { count, ...around } }] }).zones[0]?.person;
    expect(told(410)).toEqual({ told: "rounded", count: 410, low: 410, high: 410, stale: 0 });
    expect(told("<5")).toEqual({ told: "hidden", below: 5, count: 0, low: 0, high: 0, stale: 0 });
    expect(told(null)).toMatchObject({ told: "withheld", count: 0 });
  });

  it("refuses counts without a time", () => {
    expect(() => parseCounts({ zones: [] })).toThrow("no time");
  });
});

describe("parseSite", () => {
  const own = {
    type: "Feature",
    properties: { role: "site", id: "ul", name: "Limerick", timezone: "Europe/Dublin" },
    geometry: { type: "Polygon", coordinates: square },
  };
  const lot = {
    type: "Feature",
    properties: { role: "zone", id: "lot", type: "car_park", capacity: { vehicle: 20, person: null } },
    geometry: { type: "MultiPolygon", coordinates: [square] },
  };

  it("tells the boundary from the zones, and takes either kind of polygon", () => {
    const site = parseSite({ features: [lot, own] });
    expect(site).toMatchObject({ id: "ul", timezone: "Europe/Dublin", freshSeconds: 120 });
    expect(site.boundary).toMatchObject({ id: "site", polygons: [square] });
    expect(site.zones).toEqual([
      { id: "lot", name: "lot", type: "car_park", capacity: { vehicle: 20 }, polygons: [square] },
    ]);
  });

  it("refuses a file without a boundary", () => {
    expect(() => parseSite({ features: [lot] })).toThrow("boundary");
  });
});

describe("parseHistory", () => {
  it("drops rows without a time and fills in what a row leaves out", () => {
    const rows = parseHistory({ rows: [{ at: 1, person: { mean: 2.5, min: 1, max: 4 } }, { person: {} }] });
    expect(rows).toHaveLength(1);
    expect(rows[0]?.person).toEqual({ count: 2.5, min: 1, max: 4, mean: 2.5 });
  });
});
