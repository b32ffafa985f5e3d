export { Device, type DeviceOptions, type DeviceStatus } from "./device.js";
export { FallbackTransport } from "./fallback.js";
export { FixBuffer, MAX_FIXES, type WaitingFix } from "./fix-buffer.js";
export { type HttpOptions, HttpTransport } from "./http.js";
export { checkedPosition, type DevicePosition, payloadOf } from "./positions.js";
export { DEFAULT_RULES, Reporter, type ReportReason, type ReportRules, type ReportState } from "./reporting.js";
export { retryDelayS } from "./retry-delay.js";
export { type DeviceKind, SiteAreas } from "./site-areas.js";
export type { FixStorage, StoredDevice } from "./storage.js";
export {
  type DeviceIdentity,
  RetryLaterError,
  type Transport,
  type TransportEvents,
} from "./transport.js";
