/** A position as a receiver reports it. `checkedPosition` throws where time or coordinates are not valid. */
export interface DevicePosition {
  /** Unix seconds, fractions allowed. */
  t: number;
  /** WGS 84, degrees. */
  lat: number;
  lon: number;
  /** Radius of 68 % confidence in metres. */
  acc?: number | undefined;
  /** Speed in km/h. */
  vel?: number | undefined;
  /** Course over ground in degrees from north. */
  cog?: number | undefined;
  /** Altitude in metres. */
  alt?: number | undefined;
  /** Battery in percent. */
  batt?: number | undefined;
}

/** Times are smaller than this (the year 5138), so that milliseconds are found. */
const MAX_TIME_S = 1e11;
/** A larger accuracy is published as this one. */
const MAX_ACC_M = 1e6;
/** Optional fields in the order of the payload: smallest and largest published value, and decimal places. */
const OPTIONAL = [
  ["vel", 0, 1e6, 1],
  ["cog", 0, 360, 1],
  ["alt", -1e6, 1e6, 1],
  ["batt", 0, 100, 0],
] as const;

/** Returns the position; throws a `RangeError` if its time, latitude or longitude is not valid. */
export function checkedPosition(position: DevicePosition): DevicePosition {
  const { t, lat, lon } = position;
  if (![t, lat, lon].every(Number.isFinite)) throw new RangeError(`t ${t}, lat ${lat}, lon ${lon}: must be finite`);
  if (Math.abs(t) >= MAX_TIME_S) throw new RangeError(`t ${t}: is not a time in seconds; are these milliseconds?`);
  if (Math.abs(lat) > 90 || Math.abs(lon) > 180 || (lat === 0 && lon === 0))
    throw new RangeError(`lat ${lat}, lon ${lon}: is not a position in degrees`);
  return position;
}

/** The accuracy, 0 where it is unknown, as in the counting rules. */
export function accuracyOf({ acc }: DevicePosition): number {
  return acc !== undefined && Number.isFinite(acc) && acc > 0 ? acc : 0;
}

/** The fix as JSON text; docs/reference/device-behaviour.md defines it byte by byte. */
export function payloadOf(position: DevicePosition): string {
  const fields: [string, string][] = [
    ["tst", decimal(position.t, 3)],
    ["lat", decimal(position.lat, 7)],
    ["lon", decimal(position.lon, 7)],
  ];
  const acc = accuracyOf(position);
  if (acc) fields.push(["acc", decimal(Math.min(Math.max(acc, 0.1), MAX_ACC_M), 1)]);
  for (const [name, smallest, largest, places] of OPTIONAL) {
    const value = position[name];
    if (value === undefined || !(smallest <= value && value <= largest)) continue;
    const text = decimal(value, places);
    fields.push([name, name === "cog" && text === "360" ? "0" : text]);
  }
  return `{${fields.map(([name, text]) => `"${name}":${text}`).join(",")}}`;
}

/** The position of a fix that `payloadOf` wrote. */
export function positionOf(payload: string): DevicePosition {
  const { tst, ...fields } = JSON.parse(payload) as DevicePosition & { tst: number };
  return { ...fields, t: tst };
}

/** The shortest text of a number, rounded half away from zero. */
function decimal(value: number, places: number): string {
  const text = value.toFixed(places);
  const short = places ? text.replace(/\.?0+$/, "") : text;
  return short === "-0" ? "0" : short;
}
