/** How a page requests positions, with a stub of the browser's API. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FAR, INSIDE, TestTransport } from "../test/test-transport.js";
import { Device } from "./device.js";
import { positionOfGeolocation, watchGeolocation } from "./geolocation.js";

const watches = new Map<number, { options: PositionOptions; found: PositionCallback }>();
let requests = 0;
let transport: TestTransport;
let device: Device;

/** The only watch. */
function watch(): { options: PositionOptions; found: PositionCallback } {
  const [found, ...more] = watches.values();
  expect(more).toEqual([]);
  if (found === undefined) throw new Error("there is no watch");
  return found;
}

function move(place: { latitude: number; longitude: number }): void {
  const coords = { ...place, accuracy: 10, speed: null, heading: Number.NaN, altitude: null };
  watch().found({ coords, timestamp: Date.now() } as GeolocationPosition);
}

beforeEach(async () => {
  vi.useFakeTimers({ now: 1_795_532_400_000 });
  watches.clear();
  requests = 0;
  vi.stubGlobal("navigator", {
    geolocation: {
      watchPosition: (found: PositionCallback, _: unknown, options: PositionOptions) => {
        const id = watches.size + 1;
        watches.set(id, { options, found });
        return id;
      },
      clearWatch: (id: number) => watches.delete(id),
      getCurrentPosition: () => requests++,
    },
  });
  transport = new TestTransport();
  device = new Device({ transport });
  await device.start();
});

afterEach(async () => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  await device.stop();
});

test("accuracy becomes the radius of 68 %, speed km/h, and what is unknown is left out", () => {
  const coords = { ...INSIDE, accuracy: 20, speed: 5, heading: Number.NaN, altitude: null };
  const found = positionOfGeolocation({ coords, timestamp: 1500 } as GeolocationPosition);
  expect(found).toMatchObject({ t: 1.5, lat: 52.675, lon: -8.575, vel: 18, cog: undefined, alt: undefined });
  // adapters/decoding converts with the same formula
  expect(found.acc).toBeCloseTo(20 * 0.616725, 4);
});

test("exact positions are requested on and near the site only", () => {
  const end = watchGeolocation(device);
  expect(watch().options.enableHighAccuracy).toBe(true);
  move(FAR);
  expect(watch().options).toMatchObject({ enableHighAccuracy: false, maximumAge: 60_000 });
  move(INSIDE);
  expect(watch().options.enableHighAccuracy).toBe(true);
  end();
  expect(watches.size).toBe(0);
});

test("no position is requested during a pause", async () => {
  const end = watchGeolocation(device);
  const until = Date.now() / 1000 + 100;
  transport.events?.command(JSON.stringify({ id: "1", command: "pause", expires: until, until }));
  expect(watches.size).toBe(0);
  await vi.advanceTimersByTimeAsync(101_000);
  expect(watches.size).toBe(1);
  end();
});

test("a position is requested for the command report, and when a report is due without a move", async () => {
  const end = watchGeolocation(device);
  move(INSIDE);
  const before = requests;
  await vi.advanceTimersByTimeAsync(61_000);
  expect(requests).toBe(before + 1);
  const expires = Date.now() / 1000 + 100;
  transport.events?.command(JSON.stringify({ id: "2", command: "report", expires }));
  expect(requests).toBe(before + 2);
  end();
  expect(transport.sent).toHaveLength(1);
});
