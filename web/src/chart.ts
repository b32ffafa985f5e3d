/** A small chart of a zone's last hours. */

import { type HistoryRow, type Kind, known } from "./api";
import { drawing, element } from "./element";
import { clockTime, countOf, figure, kindTitle } from "./format";

/** A moment of the chart. */
export interface Point {
  at: number; // Unix milliseconds
  value: number;
  min: number;
  max: number;
  apart?: boolean; // something before it isn't told
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
  let apart = false;
  for (const { at, [kind]: spread } of [...rows].sort((a, b) => a.at - b.at)) {
    if (!known(spread)) {
      apart = true;
      continue;
    }
    points.push({ at, value: spread.mean, min: spread.min, max: spread.max, ...(apart ? { apart } : {}) });
    apart = false;
  }
  return points;
}

/** A longer time without a point is a gap. The newest rows reach the history a minute or two late. */
const gapOf = (stepMs: number): number => Math.max(2.5 * stepMs, 150_000);

/** Points in stretches: where the system was off, or numbers aren't told, the line has a gap. */
export function stretches(points: readonly Point[], gapMs: number): Point[][] {
  const found: Point[][] = [];
  let last: Point | undefined;
  for (const point of points) {
    if (last && point.at - last.at <= gapMs && !point.apart) found.at(-1)?.push(point);
    else found.push([point]);
    last = point;
  }
  return found;
}

/** The times the chart shows: what was asked for, without the empty time before the first row. */
export function spanOf(points: readonly Point[], asked: Span): Span {
  const first = points[0]?.at ?? asked.from;
  const least = asked.to - 10 * asked.stepMs;
  return { ...asked, from: Math.max(asked.from, Math.min(first, least)) };
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

/** The band between a step's least and most. */
export function bandPath(points: readonly Point[], { x, y }: Frame): string {
  const upper = points.map((point) => `${x(point.at)} ${y(point.max)}`);
  const lower = [...points].reverse().map((point) => `${x(point.at)} ${y(point.min)}`);
  return `M${[...upper, ...lower].join("L")}Z`;
}

/** What the chart shows, for those who don't see it. */
export function chartInWords(kind: Kind, points: readonly Point[], timezone: string | undefined): string {
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last) return `${kindTitle(kind)}: nothing recorded yet, or nothing that is told.`;
  const most = points.reduce((best, point) => (point.max > best.max ? point : best), first);
  const least = points.reduce((low, point) => Math.min(low, point.min), Infinity);
  return (
    `${kindTitle(kind)} since ${clockTime(first.at, timezone)}: least ${figure(least)}, ` +
    `most ${figure(most.max)} at ${clockTime(most.at, timezone)}, lately ${countOf(kind, Math.round(last.value))}.`
  );
}

/** The chart of one kind as a figure with its own axis labels. */
export function chart(kind: Kind, points: readonly Point[], asked: Span, timezone: string | undefined): HTMLElement {
  const span = spanOf(points, asked);
  const most = points.reduce((top, point) => Math.max(top, point.max), 0);
  const frame = frameOf(span, Math.max(most, 1));
  const parts = stretches(points, gapOf(span.stepMs)).flatMap((stretch) => [
    drawing("path", { class: "band", d: bandPath(stretch, frame) }),
    drawing("path", { class: "line", d: linePath(stretch, frame) }),
  ]);
  const image = drawing(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": chartInWords(kind, points, timezone),
    },
    drawing("path", { class: "floor", d: `M0 ${HEIGHT - 1}H${WIDTH}` }),
    ...parts,
  );
  return element(
    "figure",
    { class: `chart ${kind}` },
    element("figcaption", {}, element("span", {}, kindTitle(kind)), element("span", {}, `most ${figure(most)}`)),
    image,
    element("p", { class: "axis" }, element("span", {}, clockTime(span.from, timezone)), element("span", {}, "now")),
  );
}
