/** Below the 3,000 messages that the broker accepts from a device in one go. */
export const MAX_FIXES = 2_000;

/** A fix that is not acknowledged yet. */
export interface WaitingFix {
  /** Rises with each fix. */
  number: number;
  t: number;
  /** It changes the zones in which the device is counted. */
  isCounted: boolean;
  payload: string;
}

/** The waiting fixes in the order of time, bounded: a full buffer is thinned out, and keeps what changes counts. */
export class FixBuffer {
  fixes: WaitingFix[];

  constructor(
    readonly capacity: number = MAX_FIXES,
    fixes: readonly WaitingFix[] = [],
  ) {
    if (!(capacity >= 1 && capacity <= MAX_FIXES))
      throw new RangeError(`capacity ${capacity}: must be 1 to ${MAX_FIXES}`);
    this.fixes = [...fixes];
  }

  /** Adds the newest fix; returns the one that is dropped if the buffer is full. */
  append(fix: WaitingFix): WaitingFix | undefined {
    this.fixes.push(fix);
    return this.fixes.length > this.capacity ? this.fixes.splice(this.#dispensable(), 1)[0] : undefined;
  }

  /** Removes acknowledged fixes; those that are not in the buffer any more are ignored. */
  remove(numbers: ReadonlySet<number>): void {
    this.fixes = this.fixes.filter((fix) => !numbers.has(fix.number));
  }

  /**
   * The index of the fix whose neighbours are closest in time, among those that change no count.
   *
   * The first and the last are never among them. Without any, it is the oldest fix.
   */
  #dispensable(): number {
    let [found, shortest] = [0, Infinity];
    this.fixes.forEach((fix, i) => {
      const [before, after] = [this.fixes[i - 1], this.fixes[i + 1]];
      if (!before || !after || fix.isCounted || after.t - before.t >= shortest) return;
      [found, shortest] = [i, after.t - before.t];
    });
    return found;
  }
}
