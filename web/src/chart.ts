/** A small chart of a zone's history. */

import { type HistoryRow, isNumber, type Kind } from "./api";
import { element, svgElement } from "./element";
import { clockTime, countOf, formatNumber, kindTitle } from "./format";

/** A point of the chart. */
export interface Point {
  at: number; // Unix milliseconds
  value: number;
  min: number;
  max: number;
  afterGap?: boolean; // counts before it are not shown
}

export interface Span {
  from: number;
  to: number;
  stepMs: number;
}

const WIDTH = 320;
const HEIGHT = 56;

export function pointsOf(rows: readonly HistoryRow[], kind: Kind): Point[] {
  const points: Point[] = [];
  let afterGap = false;
  for (const { at, [kind]: stats } of [...rows].sort((a, b) => a.at - b.at)) {
    if (!isNumber(stats)) {
      afterGap = true;
      continue;
    }
    points.push({ at, value: stats.mean, min: stats.min, max: stats.max, ...(afterGap ? { afterGap } : {}) });
    afterGap = false;
  }
  return points;
}

/** More time than this without a point is a gap. The newest rows reach the history a minute or two late. */
const maxGap = (stepMs: number): number => Math.max(2.5 * stepMs, 150_000);

/** Points in segments: the line has a gap where the system was off or counts are not shown. */
export function segments(points: readonly Point[], gapMs: number): Point[][] {
  const found: Point[][] = [];
  let last: Point | undefined;
  for (const point of points) {
    if (last && point.at - last.at <= gapMs && !point.afterGap) found.at(-1)?.push(point);
    else found.push([point]);
    last = point;
  }
  return found;
}

/** The time span of the chart: the requested one without the empty time before the first row. */
export function spanOf(points: readonly Point[], requested: Span): Span {
  const first = points[0]?.at ?? requested.from;
  const latest = requested.to - 10 * requested.stepMs;
  return { ...requested, from: Math.max(requested.from, Math.min(first, latest)) };
}

interface Frame {
  x: (at: number) => string;
  y: (value: number) => string;
}

function frameOf(span: Span, top: number): Frame {
  const fixed = (value: number): string => value.toFixed(1);
  return {
    x: (at) => fixed(((at - span.from) / (span.to - span.from)) * WIDTH),
    y: (value) => fixed(HEIGHT - 2 - (value / top) * (HEIGHT - 6)),
  };
}

export const linePath = (points: readonly Point[], { x, y }: Frame): string =>
  points.map((point, i) => `${i === 0 ? "M" : "L"}${x(point.at)} ${y(point.value)}`).join("");

/** The band between each step's minimum and maximum. */
export function bandPath(points: readonly Point[], { x, y }: Frame): string {
  const upper = points.map((point) => `${x(point.at)} ${y(point.max)}`);
  const lower = [...points].reverse().map((point) => `${x(point.at)} ${y(point.min)}`);
  return `M${[...upper, ...lower].join("L")}Z`;
}

/** The chart's description for screen readers. */
export function chartInWords(kind: Kind, points: readonly Point[], timezone: string | undefined): string {
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last) return `${kindTitle(kind)}: nothing recorded yet, or nothing that may be shown.`;
  const peak = points.reduce((best, point) => (point.max > best.max ? point : best), first);
  const min = points.reduce((low, point) => Math.min(low, point.min), Infinity);
  return (
    `${kindTitle(kind)} since ${clockTime(first.at, timezone)}: minimum ${formatNumber(min)}, ` +
    `maximum ${formatNumber(peak.max)} at ${clockTime(peak.at, timezone)}, now ${countOf(kind, Math.round(last.value))}.`
  );
}

/** The chart of one kind as a figure with its own axis labels. */
export function chart(
  kind: Kind,
  points: readonly Point[],
  requested: Span,
  timezone: string | undefined,
): HTMLElement {
  const span = spanOf(points, requested);
  const max = points.reduce((top, point) => Math.max(top, point.max), 0);
  const frame = frameOf(span, Math.max(max, 1));
  const parts = segments(points, maxGap(span.stepMs)).flatMap((segment) => [
    svgElement("path", { class: "band", d: bandPath(segment, frame) }),
    svgElement("path", { class: "line", d: linePath(segment, frame) }),
  ]);
  const image = svgElement(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": chartInWords(kind, points, timezone),
    },
    svgElement("path", { class: "floor", d: `M0 ${HEIGHT - 1}H${WIDTH}` }),
    ...parts,
  );
  return element(
    "figure",
    { class: `chart ${kind}` },
    element("figcaption", {}, element("span", {}, kindTitle(kind)), element("span", {}, `max ${formatNumber(max)}`)),
    image,
    element("p", { class: "axis" }, element("span", {}, clockTime(span.from, timezone)), element("span", {}, "now")),
  );
}
