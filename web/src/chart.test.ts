import { describe, expect, it } from "vitest";
import { chartInWords, type Point, pointsOf, spanOf, stretches } from "./chart";

const point = (at: number, value: number, max = value): Point => ({ at, value, min: value, max });

describe("stretches", () => {
  it("has a gap where steps are missing", () => {
    const parts = stretches([point(0, 1), point(10, 2), point(20, 3), point(60, 4)], 25);
    expect(parts.map((part) => part.length)).toEqual([3, 1]);
  });
});

describe("spanOf", () => {
  it("leaves out the empty time before the first row, down to ten steps", () => {
    const asked = { from: 0, to: 1000, stepMs: 10 };
    expect(spanOf([point(600, 1)], asked).from).toBe(600);
    expect(spanOf([point(990, 1)], asked).from).toBe(900);
    expect(spanOf([], asked).from).toBe(0);
  });
});

describe("pointsOf", () => {
  it("takes one kind of the rows, in the order of time", () => {
    const spread = (mean: number) => ({ count: mean, min: mean, max: mean, mean });
    const rows = [20, 10].map((at) => ({ at, person: spread(at), vehicle: spread(0) }));
    expect(pointsOf(rows, "person").map(({ value }) => value)).toEqual([10, 20]);
  });

  it("leaves out what isn't told, and has a gap there", () => {
    const spread = (mean: number) => ({ count: mean, min: mean, max: mean, mean });
    const hidden = { ...spread(0), told: "hidden" as const };
    const rows = [5, 10, undefined, 15].map((n, at) => ({
      at,
      person: n === undefined ? hidden : { ...spread(n), told: "rounded" as const },
      vehicle: spread(0),
    }));
    const parts = stretches(pointsOf(rows, "person"), 100);
    expect(parts.map((part) => part.map(({ value }) => value))).toEqual([[5, 10], [15]]);
  });
});

describe("chartInWords", () => {
  it("tells the least, the most and when, and the last number", () => {
    const at = (minute: number): number => Date.UTC(2026, 0, 1, 13, minute);
    const said = chartInWords("person", [point(at(0), 3), point(at(5), 400, 412), point(at(9), 380)], "UTC");
    expect(said).toBe("People since 13:00: least 3, most 412 at 13:05, lately 380 people.");
    expect(chartInWords("vehicle", [], "UTC")).toContain("nothing recorded");
  });
});
