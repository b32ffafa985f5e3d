import { describe, expect, it } from "vitest";
import { type LabelCandidate, placeLabels } from "./labels";

const label = (id: string, x: number, more: Partial<LabelCandidate> = {}): LabelCandidate => ({
  id,
  x,
  y: 100,
  room: 200,
  name: 80,
  numbers: 40,
  brief: 30,
  weight: 1,
  pinned: false,
  ...more,
});
const placed = (...labels: LabelCandidate[]): unknown => Object.fromEntries(placeLabels(labels, 800, 600));

describe("placeLabels", () => {
  it("shows the name if the zone is large enough, otherwise only the count or nothing", () => {
    expect(placed(label("a", 100))).toEqual({ a: "full" });
    expect(placed(label("a", 100, { room: 40 }))).toEqual({ a: "brief" });
    expect(placed(label("a", 100, { room: 8 }))).toEqual({});
    expect(placed(label("a", 100, { room: 40, numbers: 0, brief: 0 }))).toEqual({});
  });

  it("prefers the heavier label, and shortens the other if it fits then", () => {
    expect(placed(label("light", 110), label("heavy", 100, { weight: 5 }))).toEqual({ heavy: "full" });
    expect(placed(label("light", 168), label("heavy", 100, { weight: 5 }))).toEqual({ heavy: "full", light: "brief" });
  });

  it("always shows pinned labels", () => {
    expect(placed(label("heavy", 100, { weight: 5 }), label("mine", 105, { pinned: true, room: 2 }))).toEqual({
      mine: "full",
    });
  });

  it("leaves out what is off the screen", () => {
    expect(placed(label("a", -300))).toEqual({});
  });
});
