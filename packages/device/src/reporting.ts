/** Which positions are reported: those that change counts, and others by time, distance and heading. */
import { accuracyOf, type DevicePosition } from "./positions.js";
import { BOUNDARY, type DeviceKind, distanceM, type SiteAreas } from "./site-areas.js";

/** `left`: the device left the site. `zones`: the zones that count it change. `first`: no site is known yet. */
export type ReportReason = "left" | "zones" | "first" | "requested" | "time" | "distance" | "heading";

/** Reasons for which a fix changes counts, and is kept in a full buffer. */
export const COUNTED_REASONS: ReadonlySet<ReportReason> = new Set(["left", "zones"]);
/** Times are published in milliseconds. */
const MIN_STEP_S = 0.001;
/** A device that stays reports this often within its hold, so that one lost fix does not end its presence. */
const FIXES_PER_HOLD = 3;

/** The limits for a report that changes no count. */
export interface ReportRules {
  /** A report after this time, also of a device that does not move. */
  intervalS: number;
  /** A report after this distance, if both positions are more accurate. */
  distanceM: number;
  /** A report after this change of course … */
  headingDeg: number;
  /** … at this speed or a higher one. */
  headingKmh: number;
  /** No report by distance or heading sooner than this. */
  gapS: number;
}

export const DEFAULT_RULES: Readonly<Record<DeviceKind, ReportRules>> = {
  person: { intervalS: 60, distanceM: 25, headingDeg: 60, headingKmh: 3, gapS: 5 },
  vehicle: { intervalS: 60, distanceM: 100, headingDeg: 30, headingKmh: 10, gapS: 2 },
};

/** What a device must remember to decide about its next position. */
export interface ReportState {
  /** Zones that count the device after its last report. */
  zones: ReadonlySet<string>;
  /** The last reported position. */
  last?: DevicePosition | undefined;
  /** The last reported one that is not coarse. */
  placed?: DevicePosition | undefined;
  /** Set by the command `interval`. */
  intervalS?: number | undefined;
  /** Set by the command `pause`. */
  pausedUntil: number;
  /** Set by the command `report`. */
  isRequested: boolean;
}

/** Decides about each position of a device, in the order of time. Without a site each one counts as on site. */
export class Reporter {
  site: SiteAreas | undefined;
  readonly state: ReportState = { zones: new Set(), pausedUntil: 0, isRequested: false };
  readonly #rules: ReportRules;

  constructor(kind: DeviceKind, rules: Partial<ReportRules> = {}) {
    this.#rules = { ...DEFAULT_RULES[kind], ...rules };
  }

  /** Why to report a position, undefined if not to; a reported one is remembered. */
  judge(position: DevicePosition): ReportReason | undefined {
    const { state, site } = this;
    const { last } = state;
    if (position.t < state.pausedUntil || (last && position.t - last.t < MIN_STEP_S)) return undefined;
    // after its hold, the system does not count the device any more
    const isExpired = site && last && position.t > last.t + site.holdS(state.zones);
    const before = isExpired ? new Set<string>() : state.zones;
    const isCoarse = site?.isCoarse(position) ?? false;
    if (site && state.placed && !isCoarse && site.isImplausible(state.placed, position)) return undefined;
    const after = site?.move(before, position) ?? new Set<string>();
    const reason = this.#reason(before, after, position);
    state.zones = reason ? after : before;
    if (reason) {
      state.last = position;
      state.isRequested = false;
      if (!isCoarse) state.placed = position;
    }
    return reason;
  }

  /** Forgets all positions. */
  forget(): void {
    Object.assign(this.state, { zones: new Set(), last: undefined, placed: undefined });
  }

  /** The memory as JSON, for a restart. */
  encode(): string {
    return JSON.stringify({ ...this.state, zones: [...this.state.zones].sort() });
  }

  /** Takes the memory of an earlier run; throws if it is not one. */
  restore(text: string): void {
    const { zones, ...state } = JSON.parse(text) as ReportState & { zones: string[] };
    Object.assign(this.state, state, { zones: new Set(zones) });
  }

  /** Seconds after which a device that does not move reports again. */
  get intervalS(): number {
    return this.state.intervalS ?? this.#intervalS(this.state.zones);
  }

  /** Whether the device is silent because it is not on the site. */
  get isOffSite(): boolean {
    return this.site !== undefined && this.state.zones.size === 0;
  }

  #reason(before: ReadonlySet<string>, after: ReadonlySet<string>, position: DevicePosition): ReportReason | undefined {
    const rules = this.#rules;
    const { last, isRequested, intervalS } = this.state;
    if (this.site) {
      if (!after.has(BOUNDARY)) return before.size ? "left" : undefined;
      if (after.size !== before.size || [...after].some((id) => !before.has(id))) return "zones";
    }
    if (last === undefined) return "first";
    if (isRequested) return "requested";
    const elapsedS = position.t - last.t;
    if (intervalS !== undefined) return elapsedS >= intervalS ? "time" : undefined;
    if (elapsedS >= this.#intervalS(after)) return "time";
    if (elapsedS < rules.gapS) return undefined;
    const farM = Math.max(rules.distanceM, accuracyOf(position), accuracyOf(last));
    if (distanceM(last, position) >= farM) return "distance";
    return this.#turns(last, position) ? "heading" : undefined;
  }

  #intervalS(zones: ReadonlySet<string>): number {
    const { intervalS, gapS } = this.#rules;
    return this.site ? Math.max(gapS, Math.min(intervalS, this.site.holdS(zones) / FIXES_PER_HOLD)) : intervalS;
  }

  #turns(last: DevicePosition, position: DevicePosition): boolean {
    const { headingDeg, headingKmh } = this.#rules;
    if (last.cog === undefined || position.cog === undefined || (position.vel ?? 0) < headingKmh) return false;
    const turn = Math.abs(position.cog - last.cog) % 360;
    return Math.min(turn, 360 - turn) >= headingDeg;
  }
}
