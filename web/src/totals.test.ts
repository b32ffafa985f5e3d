import { describe, expect, it } from "vitest";
import { ageInWords, type Freshness, stateInWords } from "./totals";

const good: Freshness = { validAt: 100_000, now: 101_000, state: "live", fresh: 16, total: 16 };

describe("the age of the counts", () => {
  it("is up to date while they are live", () => {
    expect(stateInWords(good)).toEqual({ state: "live", text: "Live" });
    expect(ageInWords(good)).toBe("Counts up to date");
  });

  it("is shown when partitions lag behind", () => {
    const behind = { ...good, now: 112_000, fresh: 14 };
    expect(stateInWords(behind).text).toBe("Delayed");
    expect(ageInWords(behind)).toBe("Counts from 12 s ago, 14 of 16 partitions up to date");
  });

  it("is shown when all of them are old although the server responds", () => {
    expect(stateInWords({ ...good, now: 130_000 }).state).toBe("delayed");
  });

  it("may be a minute for public counts", () => {
    const publicCounts = { ...good, now: 165_000, byMinute: true };
    expect(stateInWords(publicCounts).state).toBe("live");
    expect(ageInWords(publicCounts)).toContain("last full minute");
    expect(stateInWords({ ...publicCounts, now: 180_000 }).state).toBe("delayed");
  });

  it("does not matter when the site was removed", () => {
    const removed: Freshness = { ...good, state: "removed" };
    expect(stateInWords(removed).text).toBe("Removed");
    expect(ageInWords(removed)).toBe("This site was removed and is no longer counted");
  });

  it("is shown when the server is gone", () => {
    const gone: Freshness = { ...good, state: "reconnecting" };
    expect(stateInWords(gone).text).toBe("Reconnecting");
    expect(ageInWords(gone)).toBe("Counts from 1 s ago");
  });

  it("is unknown before the first counts", () => {
    expect(ageInWords({ ...good, validAt: undefined, state: "connecting" })).toContain("Waiting");
  });
});
