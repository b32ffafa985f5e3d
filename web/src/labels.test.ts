import { describe, expect, it } from "vitest";
import { type Candidate, place } from "./labels";

const label = (id: string, x: number, more: Partial<Candidate> = {}): Candidate => ({
  id,
  x,
  y: 100,
  room: 200,
  name: 80,
  numbers: 40,
  brief: 30,
  weight: 1,
  wanted: false,
  ...more,
});
const placed = (...labels: Candidate[]): unknown => Object.fromEntries(place(labels, 800, 600));

describe("place", () => {
  it("shows names where the zone is large enough, else only the number, else nothing", () => {
    expect(placed(label("a", 100))).toEqual({ a: "full" });
    expect(placed(label("a", 100, { room: 40 }))).toEqual({ a: "brief" });
    expect(placed(label("a", 100, { room: 8 }))).toEqual({});
    expect(placed(label("a", 100, { room: 40, numbers: 0, brief: 0 }))).toEqual({});
  });

  it("gives the place to the heavier label, and a smaller form to the other where that fits", () => {
    expect(placed(label("light", 110), label("heavy", 100, { weight: 5 }))).toEqual({ heavy: "full" });
    expect(placed(label("light", 168), label("heavy", 100, { weight: 5 }))).toEqual({ heavy: "full", light: "brief" });
  });

  it("always shows what somebody looks at", () => {
    expect(placed(label("heavy", 100, { weight: 5 }), label("mine", 105, { wanted: true, room: 2 }))).toEqual({
      mine: "full",
    });
  });

  it("leaves out what is off the screen", () => {
    expect(placed(label("a", -300))).toEqual({});
  });
});
