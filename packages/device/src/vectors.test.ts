/** The policy against the vectors that all implementations share. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { FixBuffer } from "./fix-buffer.js";
import { type DevicePosition, payloadOf } from "./positions.js";
import { DEFAULT_RULES, Reporter } from "./reporting.js";
import { retryDelayS } from "./retry-delay.js";
import { type DeviceKind, SiteAreas } from "./site-areas.js";

interface SiteVectors {
  sites: Record<string, unknown>;
  refused: string[];
  cases: {
    site: string;
    kind: DeviceKind;
    before: string[];
    lat: number;
    lon: number;
    acc: number | null;
    after: string[];
    hold_s: number;
  }[];
}

type Row = [t: number, lat: number, lon: number, acc: number | null, vel: number | null, cog: number | null];

interface ReportVector {
  name: string;
  kind: DeviceKind;
  site: string | null;
  track: Row[];
  interval_s?: number;
  paused_until?: number;
  requested_before?: number[];
  reports: [index: number, reason: string, zones: string[]][];
}

function vectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../../../tests/device/vectors/${name}.json`, import.meta.url), "utf8")) as T;
}

const { sites, refused, cases } = vectors<SiteVectors>("site");

test.each(Object.keys(sites))("the site %s is accepted or refused", (name) => {
  const parse = () => new SiteAreas(sites[name], "person");
  if (refused.includes(name)) expect(parse).toThrow(RangeError);
  else expect(parse).not.toThrow();
});

test("zones after a fix, by holes, parts, margins and accuracy", () => {
  for (const { site, kind, before, lat, lon, acc, after, hold_s } of cases) {
    const areas = new SiteAreas(sites[site], kind);
    const moved = areas.move(new Set(before), { t: 0, lat, lon, acc: acc ?? undefined });
    expect([...moved].sort()).toEqual(after);
    expect(areas.holdS(moved)).toBe(hold_s);
  }
});

test.each(vectors<ReportVector[]>("reports"))("reports: $name", (vector) => {
  const reporter = new Reporter(vector.kind);
  if (vector.site !== null) reporter.site = new SiteAreas(sites[vector.site], vector.kind);
  reporter.state.intervalS = vector.interval_s;
  reporter.state.pausedUntil = vector.paused_until ?? 0;
  const reports = vector.track.flatMap(([t, lat, lon, acc, vel, cog], index) => {
    if (vector.requested_before?.includes(index)) reporter.state.isRequested = true;
    const known = (value: number | null) => value ?? undefined;
    const reason = reporter.judge({ t, lat, lon, acc: known(acc), vel: known(vel), cog: known(cog) });
    return reason ? [[index, reason, [...reporter.state.zones].sort()]] : [];
  });
  expect(reports).toEqual(vector.reports);
});

test("default rules", () => {
  const rules = Object.entries(DEFAULT_RULES).map(([kind, each]) => [
    kind,
    {
      interval_s: each.intervalS,
      distance_m: each.distanceM,
      heading_deg: each.headingDeg,
      heading_kmh: each.headingKmh,
      gap_s: each.gapS,
    },
  ]);
  expect(Object.fromEntries(rules)).toEqual(vectors("rules"));
});

describe("payloads", () => {
  const payloads = vectors<{ position: DevicePosition & { tst: number }; payload: string }[]>("payload");
  test.each(payloads)("$payload", ({ position: { tst, ...position }, payload }) => {
    expect(payloadOf({ ...position, t: tst })).toBe(payload);
  });
});

test.each(vectors<{ name: string; capacity: number; fixes: [number, boolean][]; remaining: number[] }[]>("buffer"))(
  "buffer: $name",
  ({ capacity, fixes, remaining }) => {
    const buffer = new FixBuffer(capacity);
    for (const [number, [t, isCounted]] of fixes.entries()) buffer.append({ number, t, isCounted, payload: "" });
    expect(buffer.fixes.map((fix) => fix.t)).toEqual(remaining);
  },
);

test("pauses before another attempt", () => {
  for (const each of vectors<{ attempt: number; share: number; retry_after_s: number; delay_s: number }[]>("retry"))
    expect(retryDelayS(each.attempt, each.share, each.retry_after_s)).toBe(each.delay_s);
});
