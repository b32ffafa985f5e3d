import { describe, expect, it } from "vitest";
import { chartInWords, type Point, pointsOf, segments, spanOf } from "./chart";

const point = (at: number, value: number, max = value): Point => ({ at, value, min: value, max });

describe("segments", () => {
  it("have a gap where steps are missing", () => {
    const parts = segments([point(0, 1), point(10, 2), point(20, 3), point(60, 4)], 25);
    expect(parts.map((part) => part.length)).toEqual([3, 1]);
  });
});

describe("spanOf", () => {
  it("leaves out the empty time before the first row, down to ten steps", () => {
    const requested = { from: 0, to: 1000, stepMs: 10 };
    expect(spanOf([point(600, 1)], requested).from).toBe(600);
    expect(spanOf([point(990, 1)], requested).from).toBe(900);
    expect(spanOf([], requested).from).toBe(0);
  });
});

describe("pointsOf", () => {
  it("have one kind of each row, in the order of time", () => {
    const stats = (mean: number) => ({ min: mean, max: mean, mean });
    const rows = [20, 10].map((at) => ({ at, person: stats(at), vehicle: stats(0) }));
    expect(pointsOf(rows, "person").map(({ value }) => value)).toEqual([10, 20]);
  });

  it("have a gap where counts are not shown", () => {
    const stats = (mean: number) => ({ min: mean, max: mean, mean });
    const hidden = { ...stats(0), disclosure: "hidden" as const };
    const rows = [5, 10, undefined, 15].map((n, at) => ({
      at,
      person: n === undefined ? hidden : { ...stats(n), disclosure: "rounded" as const },
      vehicle: stats(0),
    }));
    const parts = segments(pointsOf(rows, "person"), 100);
    expect(parts.map((part) => part.map(({ value }) => value))).toEqual([[5, 10], [15]]);
  });
});

describe("chartInWords", () => {
  it("has minimum, maximum with its time, and the last count", () => {
    const at = (minute: number): number => Date.UTC(2026, 0, 1, 13, minute);
    const text = chartInWords("person", [point(at(0), 3), point(at(5), 400, 412), point(at(9), 380)], "UTC");
    expect(text).toBe("People since 13:00: minimum 3, maximum 412 at 13:05, now 380 people.");
    expect(chartInWords("vehicle", [], "UTC")).toContain("nothing recorded");
  });
});
