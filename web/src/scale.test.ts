import { describe, expect, it } from "vitest";
import type { Zone, ZoneCounts } from "./api";
import { DARK, defaultMode, EMPTY, LIGHT, NEUTRAL, niceEnd, OVER, occupancy, stepOf, steps } from "./scale";

const zone = (id: string, capacity: Zone["capacity"]): Zone => ({
  id,
  name: id,
  type: "building",
  capacity,
  polygons: [],
});
const numbers = (count: number) => ({ count, low: count, high: count, stale: 0 });
const counts = (id: string, person: number, vehicle = 0): [string, ZoneCounts] => [
  id,
  { zone: id, person: numbers(person), vehicle: numbers(vehicle) },
];

/** Linear red, green and blue of `#rrggbb`. */
const linear = (colour: string): [number, number, number] => {
  const channel = (at: number): number => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return [channel(1), channel(3), channel(5)];
};

/** A colour's luminance for full, red-blind and green-blind sight (Viénot, Brettel, Mollon 1999). */
const SIGHTS: Record<string, (colour: string) => number> = {
  full: (colour) => {
    const [r, g, b] = linear(colour);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  },
  "red-blind": (colour) => {
    const [r, g, b] = linear(colour);
    const yellow = 0.11238 * r + 0.88762 * g;
    return 0.9278 * yellow + 0.0722 * (0.00401 * r - 0.00401 * g + b);
  },
  "green-blind": (colour) => {
    const [r, g, b] = linear(colour);
    const yellow = 0.29275 * r + 0.70725 * g;
    return 0.9278 * yellow + 0.0722 * (-0.02234 * r + 0.02234 * g + b);
  },
};

describe("stepOf", () => {
  it("has fifths of the scale, upper bounds included, and one step above it", () => {
    expect([0, 0.001, 0.199, 0.2, 0.99, 1, 1.001].map(stepOf)).toEqual([EMPTY, 1, 1, 2, 5, 5, OVER]);
  });
});

describe("occupancy", () => {
  it("is the larger share of both kinds, and undefined without a capacity", () => {
    const [, both] = counts("a", 30, 9);
    expect(occupancy(zone("a", { person: 100, vehicle: 10 }), both)).toBeCloseTo(0.9);
    expect(occupancy(zone("a", {}), both)).toBeUndefined();
    expect(occupancy(zone("a", { person: 5 }), undefined)).toBeUndefined(); // not "0 % full" before the first counts
  });
});

describe("niceEnd", () => {
  it("is a round number that is at least the busiest zone's count", () => {
    expect([0, 5, 6, 11, 26, 412, 999].map(niceEnd)).toEqual([5, 5, 10, 25, 50, 500, 1000]);
  });
});

describe("steps", () => {
  const zones = [zone("a", { person: 10 }), zone("b", {})];
  const now = new Map([counts("a", 5, 1), counts("b", 50)]);

  it("are relative to the capacity, and neutral without one", () => {
    expect([...steps(zones, now, "full").byZone]).toEqual([
      ["a", 3],
      ["b", NEUTRAL],
    ]);
  });

  it("are neutral for a zone whose count is hidden", () => {
    const hidden = { disclosure: "hidden" as const, below: 5, ...numbers(0) };
    const some = new Map([["a", { zone: "a", person: hidden, vehicle: hidden }], counts("b", 50)]);
    expect(steps(zones, some, "person").byZone.get("a")).toBe(NEUTRAL);
    expect(steps(zones, some, "full").byZone.get("a")).toBe(NEUTRAL);
  });

  it("are relative to the busiest zone for one kind", () => {
    const { end, byZone } = steps(zones, now, "person");
    expect(end).toBe(50);
    expect([...byZone.values()]).toEqual([1, 5]);
  });
});

describe("defaultMode", () => {
  it("is the capacity only if half of the zones have one", () => {
    expect(defaultMode([zone("a", { person: 1 }), zone("b", {})])).toBe("full");
    expect(defaultMode([zone("a", {}), zone("b", {})])).toBe("person");
    expect(defaultMode([])).toBe("person");
  });
});

describe.each(Object.entries(SIGHTS))("the colours for %s sight", (_, luminance) => {
  it.each(Object.entries({ LIGHT, DARK }))("get steadily and clearly darker or lighter (%s)", (name, palette) => {
    const all = palette.steps.map(luminance);
    const ratios = all.slice(1).map((next, i) => {
      const [a, b] = [next + 0.05, (all[i] as number) + 0.05];
      return name === "LIGHT" ? b / a : a / b;
    });
    for (const ratio of ratios) expect(ratio).toBeGreaterThan(1.2);
  });
});
