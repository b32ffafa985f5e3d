/** Numbers and times as words. */

import { type Kind, known, type Numbers, type Zone, type ZoneCount } from "./api";
import { occupancy } from "./scale";

const figures = new Intl.NumberFormat("en");
const NOUNS: Record<Kind, [string, string]> = { person: ["person", "people"], vehicle: ["vehicle", "vehicles"] };
const TYPES: Record<string, [string, string]> = {
  building: ["building", "Buildings"],
  car_park: ["car park", "Car parks"],
  area: ["area", "Areas"],
  gate: ["gate", "Gates"],
  site: ["whole site", "Sites"],
};

export const figure = (value: number): string => figures.format(Math.round(value));

/** `1 person`, `412 people`. */
export const countOf = (kind: Kind, value: number): string => `${figure(value)} ${NOUNS[kind][value === 1 ? 0 : 1]}`;

/** A count as figures: `412`, `<5`, or a dash where it isn't told. */
export const shown = (numbers: Numbers): string =>
  known(numbers) ? figure(numbers.count) : numbers.told === "hidden" ? `<${figure(numbers.below ?? 1)}` : "–";

/** A count in words: `412 people`, `about 410 people`, `fewer than 5 people`. */
export function countInWords(kind: Kind, numbers: Numbers): string {
  if (numbers.told === "hidden") return `fewer than ${countOf(kind, numbers.below ?? 1)}`;
  if (numbers.told === "withheld") return `number of ${NOUNS[kind][1]} not told`;
  return numbers.told === "rounded" ? `about ${countOf(kind, numbers.count)}` : countOf(kind, numbers.count);
}

export const kindTitle = (kind: Kind): string => (kind === "person" ? "People" : "Vehicles");

export const typeName = (type: string): string => TYPES[type]?.[0] ?? type.replaceAll("_", " ");

export function typePlural(type: string): string {
  const known = TYPES[type]?.[1];
  if (known) return known;
  const name = typeName(type);
  return `${name.charAt(0).toUpperCase()}${name.slice(1)}s`;
}

export const percent = (share: number): string => `${figure(share * 100)}%`;

/** `12 s`, `3 min`, `2 h`: never negative. */
export function age(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** `2 minutes`, for sentences. */
export function duration(seconds: number): string {
  if (seconds < 60 || seconds % 60 !== 0) return `${figure(seconds)} seconds`;
  const minutes = seconds / 60;
  return minutes === 1 ? "1 minute" : `${figure(minutes)} minutes`;
}

/** `390–420`, or `exactly 412` where there is no doubt. */
export function range(numbers: Numbers): string {
  if (numbers.told) return { rounded: "rounded", hidden: "", withheld: "not told" }[numbers.told];
  return numbers.low === numbers.high
    ? `exactly ${figure(numbers.low)}`
    : `${figure(numbers.low)}–${figure(numbers.high)}`;
}

/** `between 390 and 420`, to be read out. */
export const rangeInWords = (numbers: Numbers): string =>
  numbers.low === numbers.high
    ? `exactly ${figure(numbers.low)}`
    : `between ${figure(numbers.low)} and ${figure(numbers.high)}`;

export function clockTime(at: number, timezone: string | undefined): string {
  const options: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  try {
    return new Intl.DateTimeFormat("en-GB", { ...options, ...(timezone ? { timeZone: timezone } : {}) }).format(at);
  } catch {
    return new Intl.DateTimeFormat("en-GB", options).format(at); // a time zone that this browser doesn't know
  }
}

/** What a zone's button says to those who don't see it: `Library, building, 412 people, 3 vehicles, 69% full`. */
export function zoneInWords(zone: Zone, counts: ZoneCount | undefined): string {
  const parts = [zone.name, typeName(zone.type)];
  if (!counts) return [...parts, "no numbers yet"].join(", ");
  parts.push(countInWords("person", counts.person), countInWords("vehicle", counts.vehicle));
  const share = occupancy(zone, counts);
  if (share !== undefined) parts.push(`${percent(share)} full`);
  return parts.join(", ");
}

/** What a count means, sentence by sentence. */
export function explain(kind: Kind, numbers: Numbers, freshSeconds: number): string[] {
  if (numbers.told) return explainTold(kind, numbers);
  if (numbers.high === 0) return [`No ${NOUNS[kind][1]} here, and none close by.`];
  const said = [`${countOf(kind, numbers.count)} counted here.`];
  if (numbers.low === numbers.count && numbers.high === numbers.count) {
    said.push("There is no doubt about any of them: heard from lately, and well inside.");
    return said;
  }
  said.push(
    numbers.low === 0
      ? "None of them is beyond doubt."
      : `${figure(numbers.low)} beyond doubt: heard from lately, and well inside.`,
  );
  const near = numbers.high - numbers.count;
  if (near > 0) said.push(`At most ${figure(numbers.high)}: ${figure(near)} more so close by that they may be inside.`);
  if (numbers.stale > 0) {
    const why = kind === "vehicle" ? "parked, as a rule" : "still counted for a while";
    said.push(`${figure(numbers.stale)} not heard from for over ${duration(freshSeconds)}: ${why}.`);
  }
  return said;
}

function explainTold(kind: Kind, numbers: Numbers): string[] {
  const said = countInWords(kind, numbers);
  const first = `${said.charAt(0).toUpperCase()}${said.slice(1)}`;
  if (numbers.told === "hidden") return [`${first} here, perhaps none: small numbers aren’t told.`];
  if (numbers.told === "withheld") return [`${first} at the moment: with the others it would give a small one away.`];
  return [`${first} here: rounded at random, and told once a minute.`];
}

export const pageTitle = (site: string, total: ZoneCount | undefined, lost: boolean): string => {
  const numbers = total
    ? `${countInWords("person", total.person)} · ${countInWords("vehicle", total.vehicle)} – ${site}`
    : site;
  return lost ? `(reconnecting) ${numbers}` : numbers;
};
