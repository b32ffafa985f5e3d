import type { Device } from "./device.js";
import type { DevicePosition } from "./positions.js";

/**
 * Browsers report the radius of 95 % confidence (W3C Geolocation), headcount counts with that of 68 %.
 *
 * For an error that is normal and equal in all directions.
 */
const RADIUS_68 = Math.sqrt(Math.log(1 - 0.68) / Math.log(1 - 0.95));
const KMH = 3.6;
/** Farther away from the site, positions of the network suffice. */
const NEAR_M = 500;
const FAR_AGE_MS = 60_000;
const NEAR_AGE_MS = 2_000;
const TIMEOUT_MS = 60_000;

export interface GeolocationOptions {
  /** Is called with the browser's errors, such as a refused permission. */
  onError?: ((error: GeolocationPositionError) => void) | undefined;
  /** Is called with each position that the device judged. */
  onPosition?: ((position: DevicePosition) => void) | undefined;
}

/** Converts a position of the browser. */
export function positionOfGeolocation({ coords, timestamp }: GeolocationPosition): DevicePosition {
  const known = (value: number | null, factor = 1): number | undefined =>
    value === null || Number.isNaN(value) ? undefined : value * factor;
  return {
    t: timestamp / 1000,
    lat: coords.latitude,
    lon: coords.longitude,
    acc: coords.accuracy * RADIUS_68,
    vel: known(coords.speed, KMH),
    cog: known(coords.heading),
    alt: known(coords.altitude),
  };
}

/**
 * Reports the browser's positions, sparing the battery: the exact ones on and near the site only, none in a pause.
 *
 * Returns a function that ends it.
 */
export function watchGeolocation(device: Device, options: GeolocationOptions = {}): () => void {
  const { geolocation } = navigator;
  let isNear = true;
  let isRequested = false;
  let mode = "";
  let watch: number | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const settings = (): PositionOptions => ({
    enableHighAccuracy: isNear,
    maximumAge: isNear ? NEAR_AGE_MS : FAR_AGE_MS,
  });
  const onError = (error: GeolocationPositionError): void => options.onError?.(error);
  const request = (): void =>
    geolocation.getCurrentPosition(onPosition, onError, { ...settings(), maximumAge: 0, timeout: TIMEOUT_MS });
  /** A device that does not move gets no positions from a watch: request one when the next report is due. */
  const requestLater = (): void => {
    clearTimeout(timer);
    if (watch === undefined) return;
    const onDue = (): void => {
      request();
      requestLater();
    };
    timer = setTimeout(onDue, device.intervalS * 1000);
  };
  const onPosition = (found: GeolocationPosition): void => {
    const position = positionOfGeolocation(found);
    isNear = device.isNear(position, NEAR_M);
    requestLater();
    adapt();
    device.report(position).catch(() => undefined);
    options.onPosition?.(position);
  };
  const end = (): void => {
    if (watch !== undefined) geolocation.clearWatch(watch);
    watch = undefined;
    clearTimeout(timer);
  };
  const adapt = (): void => {
    const { status } = device;
    const pauseMs = status.pausedUntil * 1000 - Date.now();
    const wanted = pauseMs > 0 ? "paused" : isNear ? "near" : "far";
    if (wanted !== mode) {
      mode = wanted;
      end();
      if (wanted === "paused") timer = setTimeout(adapt, pauseMs);
      else {
        watch = geolocation.watchPosition(onPosition, onError, settings());
        requestLater();
      }
    }
    if (status.isRequested && !isRequested && wanted !== "paused") request();
    isRequested = status.isRequested;
  };

  const unsubscribe = device.onChange(adapt);
  adapt();
  return () => {
    unsubscribe();
    end();
  };
}
