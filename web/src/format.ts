/** Numbers and times as text. */

import { isNumber, type Kind, type KindCount, type ZoneCounts } from "./api";

const numberFormat = new Intl.NumberFormat("en");
const NOUNS: Record<Kind, [string, string]> = { person: ["person", "people"], vehicle: ["vehicle", "vehicles"] };
const TYPES: Record<string, [string, string]> = {
  building: ["building", "Buildings"],
  car_park: ["car park", "Car parks"],
  area: ["area", "Areas"],
  gate: ["gate", "Gates"],
  site: ["whole site", "Sites"],
};

export const formatNumber = (value: number): string => numberFormat.format(Math.round(value));

/** `1 person`, `412 people`. */
export const countOf = (kind: Kind, value: number): string =>
  `${formatNumber(value)} ${NOUNS[kind][value === 1 ? 0 : 1]}`;

/** A count: `412`, `<5`, or a dash if it is withheld. */
export const formatCount = (numbers: KindCount): string =>
  isNumber(numbers)
    ? formatNumber(numbers.count)
    : numbers.disclosure === "hidden"
      ? `<${formatNumber(numbers.below ?? 1)}`
      : "–";

/** A count in words: `412 people`, `about 410 people`, `fewer than 5 people`. */
export function countInWords(kind: Kind, numbers: KindCount): string {
  if (numbers.disclosure === "hidden") return `fewer than ${countOf(kind, numbers.below ?? 1)}`;
  if (numbers.disclosure === "withheld") return `number of ${NOUNS[kind][1]} not shown`;
  return numbers.disclosure === "rounded" ? `about ${countOf(kind, numbers.count)}` : countOf(kind, numbers.count);
}

export const kindTitle = (kind: Kind): string => (kind === "person" ? "People" : "Vehicles");

export const typeName = (type: string): string => TYPES[type]?.[0] ?? type.replaceAll("_", " ");

export function typePlural(type: string): string {
  const plural = TYPES[type]?.[1];
  if (plural) return plural;
  const name = typeName(type);
  return `${name.charAt(0).toUpperCase()}${name.slice(1)}s`;
}

export const percent = (share: number): string => `${formatNumber(share * 100)}%`;

/** `12 s`, `3 min`, `2 h`: never negative. */
export function age(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** A duration in words: `2 minutes`. */
export function duration(seconds: number): string {
  if (seconds < 60 || seconds % 60 !== 0) return `${formatNumber(seconds)} seconds`;
  const minutes = seconds / 60;
  return minutes === 1 ? "1 minute" : `${formatNumber(minutes)} minutes`;
}

/** `390–420`, or `exactly 412` if both bounds are the same. */
export function range(numbers: KindCount): string {
  if (numbers.disclosure) return { rounded: "rounded", hidden: "", withheld: "not shown" }[numbers.disclosure];
  return numbers.low === numbers.high
    ? `exactly ${formatNumber(numbers.low)}`
    : `${formatNumber(numbers.low)}–${formatNumber(numbers.high)}`;
}

/** `between 390 and 420`, to be read out. */
export const rangeInWords = (numbers: KindCount): string =>
  numbers.low === numbers.high
    ? `exactly ${formatNumber(numbers.low)}`
    : `between ${formatNumber(numbers.low)} and ${formatNumber(numbers.high)}`;

export function clockTime(at: number, timezone: string | undefined): string {
  const options: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  try {
    return new Intl.DateTimeFormat("en-GB", { ...options, ...(timezone ? { timeZone: timezone } : {}) }).format(at);
  } catch {
    return new Intl.DateTimeFormat("en-GB", options).format(at); // a time zone that the browser doesn't know
  }
}

/** The meaning of a count, in sentences. */
export function explain(kind: Kind, numbers: KindCount, freshSeconds: number): string[] {
  if (numbers.disclosure) return explainDisclosure(kind, numbers);
  if (numbers.high === 0) return [`No ${NOUNS[kind][1]} here, and none nearby.`];
  const sentences = [`${countOf(kind, numbers.count)} counted here.`];
  if (numbers.low === numbers.count && numbers.high === numbers.count) {
    sentences.push("All of them are certain: seen recently, and well inside.");
    return sentences;
  }
  sentences.push(
    numbers.low === 0
      ? "None of them is certain."
      : `${formatNumber(numbers.low)} certain: seen recently, and well inside.`,
  );
  const near = numbers.high - numbers.count;
  if (near > 0)
    sentences.push(
      `At most ${formatNumber(numbers.high)}: ${formatNumber(near)} more are so near that they may be inside.`,
    );
  if (numbers.stale > 0) {
    const why = kind === "vehicle" ? "probably parked" : "still counted for a while";
    sentences.push(`${formatNumber(numbers.stale)} not seen for over ${duration(freshSeconds)}: ${why}.`);
  }
  return sentences;
}

function explainDisclosure(kind: Kind, numbers: KindCount): string[] {
  const count = countInWords(kind, numbers);
  const first = `${count.charAt(0).toUpperCase()}${count.slice(1)}`;
  if (numbers.disclosure === "hidden") return [`${first} here, perhaps none: small numbers aren’t shown.`];
  if (numbers.disclosure === "withheld")
    return [`${first} at the moment: together with the others it would reveal a small one.`];
  return [`${first} here: rounded at random, and updated once a minute.`];
}

export const pageTitle = (site: string, total: ZoneCounts | undefined, lost: boolean): string => {
  const numbers = total
    ? `${countInWords("person", total.person)} · ${countInWords("vehicle", total.vehicle)} – ${site}`
    : site;
  return lost ? `(reconnecting) ${numbers}` : numbers;
};
