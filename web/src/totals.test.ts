import { describe, expect, it } from "vitest";
import { ageInWords, type Freshness, stateInWords } from "./totals";

const good: Freshness = { validAt: 100_000, now: 101_000, state: "live", fresh: 16, total: 16 };

describe("how new the numbers are", () => {
  it("is left at that while they are live", () => {
    expect(stateInWords(good)).toEqual({ state: "live", text: "Live" });
    expect(ageInWords(good)).toBe("Numbers up to date");
  });

  it("is told when parts of them lag behind", () => {
    const behind = { ...good, now: 112_000, fresh: 14 };
    expect(stateInWords(behind).text).toBe("Delayed");
    expect(ageInWords(behind)).toBe("Numbers from 12 s ago, 14 of 16 parts up to date");
  });

  it("is told when all of them are old though the server answers", () => {
    expect(stateInWords({ ...good, now: 130_000 }).state).toBe("delayed");
  });

  it("is a minute at most for what the public is told", () => {
    const told = { ...good, now: 165_000, byMinute: true };
    expect(stateInWords(told).state).toBe("live");
    expect(ageInWords(told)).toContain("last full minute");
    expect(stateInWords({ ...told, now: 180_000 }).state).toBe("delayed");
  });

  it("is told at once when the server is gone", () => {
    const gone: Freshness = { ...good, state: "reconnecting" };
    expect(stateInWords(gone).text).toBe("Reconnecting");
    expect(ageInWords(gone)).toBe("Numbers from 1 s ago");
  });

  it("is unknown before the first numbers", () => {
    expect(ageInWords({ ...good, validAt: undefined, state: "connecting" })).toContain("Waiting");
  });
});
