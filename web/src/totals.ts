/** The counts of the whole site, their age, and whether they are live. */

import { type Api, type Counts, KINDS, type ZoneCounts } from "./api";
import { byId, setAttribute, setText } from "./element";
import { age, formatCount, range } from "./format";
import type { StreamState } from "./stream";

/** The server pings every 5 s, so counts younger than this are up to date. */
const MAX_AGE_MS = 8_000;
/** Public counts are of the last full minute. */
const PUBLIC_MAX_AGE_MS = 68_000;

export interface Freshness {
  validAt: number | undefined; // Unix milliseconds
  now: number;
  state: StreamState;
  fresh: number; // partitions up to date, of `total`
  total: number;
  byMinute?: boolean; // public counts
}

/** Whether the counts lag behind although the connection is live. */
export const delayed = ({ validAt, now, fresh, total, byMinute }: Freshness): boolean =>
  fresh < total || (validAt !== undefined && now - validAt > (byMinute ? PUBLIC_MAX_AGE_MS : MAX_AGE_MS));

export function stateInWords(freshness: Freshness): { state: string; text: string } {
  if (freshness.state === "reconnecting") return { state: "reconnecting", text: "Reconnecting" };
  if (freshness.state === "removed") return { state: "reconnecting", text: "Removed" };
  if (freshness.state === "connecting") return { state: "connecting", text: "Connecting" };
  return delayed(freshness) ? { state: "delayed", text: "Delayed" } : { state: "live", text: "Live" };
}

export function ageInWords(freshness: Freshness): string {
  const { validAt, now, state, fresh, total } = freshness;
  if (state === "removed") return "This site was removed and is no longer counted";
  if (validAt === undefined) return "Waiting for the first counts";
  if (state === "live" && !delayed(freshness)) {
    return freshness.byMinute ? "Counts of the last full minute, small ones hidden" : "Counts up to date";
  }
  const parts = fresh < total ? `, ${fresh} of ${total} partitions up to date` : "";
  return `Counts from ${age(now - validAt)} ago${parts}`;
}

export class Totals {
  #validAt: number | undefined;
  #state: StreamState = "connecting";
  #fresh = 0;
  #total = 0;
  #byMinute = false;

  constructor(private readonly api: Api) {
    setInterval(() => this.#render(), 1_000);
  }

  update(counts: Counts, site: ZoneCounts | undefined): void {
    this.#fresh = counts.fresh;
    this.#total = counts.total;
    this.#byMinute = site?.person.disclosure !== undefined;
    this.setTime(counts.at);
    if (!site) return;
    for (const kind of KINDS) {
      setText(byId(`total-${kind}`), formatCount(site[kind]));
      setText(byId(`range-${kind}`), range(site[kind]));
    }
  }

  /** Sets the time that all counts on the page are valid at. */
  setTime(at: number): void {
    this.#validAt = at; // not the maximum: the server's clock may have been set back
    this.#render();
  }

  setState(state: StreamState): void {
    this.#state = state;
    this.#render();
  }

  #render(): void {
    const freshness: Freshness = {
      validAt: this.#validAt,
      now: this.api.now(),
      state: this.#state,
      fresh: this.#fresh,
      total: this.#total,
      byMinute: this.#byMinute,
    };
    const { state, text } = stateInWords(freshness);
    setAttribute(byId("status"), "data-state", state);
    setText(byId("status-text"), text);
    setText(byId("age"), ageInWords(freshness));
  }
}
