import { describe, expect, it } from "vitest";
import type { Ring, Zone } from "./api";
import { anchorOf, areaOf, boxOf, widen } from "./geometry";

const box = (west: number, south: number, east: number, north: number): Ring => [
  [west, south],
  [east, south],
  [east, north],
  [west, north],
  [west, south],
];
const zone = (...polygons: Ring[][]): Zone => ({ id: "z", name: "z", type: "area", capacity: {}, polygons });

describe("anchorOf", () => {
  it("is the middle of a square", () => {
    const [x, y] = anchorOf(zone([box(0, 0, 2, 2)]));
    expect([x, y]).toEqual([1, 1]);
  });

  it("is inside a U, not in its opening", () => {
    const u: Ring = [
      [0, 0],
      [9, 0],
      [9, 9],
      [6, 9],
      [6, 3],
      [3, 3],
      [3, 9],
      [0, 9],
      [0, 0],
    ];
    const [x, y] = anchorOf(zone([u]));
    expect(y < 3 || x < 3 || x > 6).toBe(true);
  });

  it("is in the largest polygon, outside its holes", () => {
    const [x, y] = anchorOf(zone([box(20, 20, 21, 21)], [box(0, 0, 9, 9), box(3, 3, 6, 6)]));
    expect(x < 9 && y < 9).toBe(true);
    expect(x > 3 && x < 6 && y > 3 && y < 6).toBe(false);
  });
});

describe("boxes and areas", () => {
  it("cover all polygons", () => {
    const both = zone([box(0, 0, 1, 1)], [box(4, 2, 5, 3)]);
    expect(boxOf(both.polygons)).toEqual([0, 0, 5, 3]);
    expect(areaOf(both)).toBe(2);
    expect(widen([0, 0, 10, 20], 0.1)).toEqual([-1, -2, 11, 22]);
  });
});
