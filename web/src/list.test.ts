import { describe, expect, it } from "vitest";
import type { Zone, ZoneCounts } from "./api";
import { busiestFirst, typesOf } from "./list";

const zone = (id: string, type = "building"): Zone => ({ id, name: id, type, capacity: {}, polygons: [] });
const zones = [zone("Arts"), zone("Library"), zone("Lot 1", "car_park"), zone("Zoo")];
const numbers = (count: number) => ({ count, low: count, high: count, stale: 0 });
const counts = new Map<string, ZoneCounts>([
  ["Library", { zone: "Library", person: numbers(9), vehicle: numbers(0) }],
  ["Lot 1", { zone: "Lot 1", person: numbers(2), vehicle: numbers(40) }],
]);
const names = (type: string | undefined, words = ""): string[] =>
  busiestFirst(zones, counts, { type, words }).map(({ name }) => name);

describe("busiestFirst", () => {
  it("sorts by people and vehicles together, then by name", () => {
    expect(names(undefined)).toEqual(["Lot 1", "Library", "Arts", "Zoo"]);
  });

  it("filters by type, or by text in the name", () => {
    expect(names("building")).toEqual(["Library", "Arts", "Zoo"]);
    expect(names(undefined, " l")).toEqual(["Lot 1", "Library"]);
  });

  it("does not change the order of its argument", () => {
    names(undefined);
    expect(zones[0]?.name).toBe("Arts");
  });
});

describe("typesOf", () => {
  it("has the most frequent type first", () => {
    expect(typesOf(zones)).toEqual([
      ["building", 3],
      ["car_park", 1],
    ]);
  });
});
