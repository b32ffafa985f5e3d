import { describe, expect, it } from "vitest";
import type { ZoneCounts } from "./api";
import * as format from "./format";

const counts: ZoneCounts = {
  zone: "library",
  person: { count: 412, low: 390, high: 420, stale: 12 },
  vehicle: { count: 1, low: 0, high: 1, stale: 1 },
};

describe("texts", () => {
  it("describe protected counts", () => {
    const hidden = { disclosure: "hidden" as const, below: 5, count: 0, low: 0, high: 0, stale: 0 };
    const rounded = { disclosure: "rounded" as const, count: 410, low: 410, high: 410, stale: 0 };
    const withheld = { disclosure: "withheld" as const, count: 0, low: 0, high: 0, stale: 0 };
    expect([hidden, rounded, withheld].map(format.formatCount)).toEqual(["<5", "410", "–"]);
    expect(format.countInWords("person", hidden)).toBe("fewer than 5 people");
    expect(format.countInWords("person", rounded)).toBe("about 410 people");
    expect([hidden, rounded, withheld].map(format.range)).toEqual(["", "rounded", "not shown"]);
    expect(format.explain("vehicle", hidden, 120)).toEqual([
      "Fewer than 5 vehicles here, perhaps none: small numbers aren’t shown.",
    ]);
    expect(format.explain("person", withheld, 120)).toHaveLength(1);
  });

  it("have singular and plural", () => {
    expect(format.countOf("person", 1)).toBe("1 person");
    expect(format.countOf("vehicle", 1234)).toBe("1,234 vehicles");
  });

  it("name types, unknown ones included", () => {
    expect(format.typePlural("car_park")).toBe("Car parks");
    expect(format.typePlural("tram_stop")).toBe("Tram stops");
  });
});

describe("age", () => {
  it("has seconds, minutes and hours, and is never negative", () => {
    expect([-5_000, 12_000, 180_000, 7_200_000].map(format.age)).toEqual(["0 s", "12 s", "3 min", "2 h"]);
  });
});

describe("range", () => {
  it("has both bounds, or one if they are the same", () => {
    expect(format.range(counts.person)).toBe("390–420");
    expect(format.range({ count: 7, low: 7, high: 7, stale: 0 })).toBe("exactly 7");
  });
});

describe("explain", () => {
  it("has certain, possible and stale members", () => {
    expect(format.explain("person", counts.person, 120)).toEqual([
      "412 people counted here.",
      "390 certain: seen recently, and well inside.",
      "At most 420: 8 more are so near that they may be inside.",
      "12 not seen for over 2 minutes: still counted for a while.",
    ]);
  });

  it("is short if all members are certain", () => {
    expect(format.explain("vehicle", { count: 0, low: 0, high: 0, stale: 0 }, 120)).toHaveLength(1);
    expect(format.explain("person", { count: 2, low: 2, high: 2, stale: 0 }, 120)[1]).toContain("certain");
  });
});

describe("pageTitle", () => {
  it("starts with the counts, and shows when they aren't live", () => {
    expect(format.pageTitle("Limerick", counts, false)).toBe("412 people · 1 vehicle – Limerick");
    expect(format.pageTitle("Limerick", counts, true)).toMatch(/^\(reconnecting\) 412/);
    expect(format.pageTitle("Limerick", undefined, false)).toBe("Limerick");
  });
});

describe("clockTime", () => {
  it("is the site's time, or the browser's for an unknown time zone", () => {
    expect(format.clockTime(Date.UTC(2026, 6, 1, 12), "Europe/Dublin")).toBe("13:00");
    expect(format.clockTime(0, "Nowhere/Else")).toMatch(/^\d\d:\d\d$/);
  });
});
