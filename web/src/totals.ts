/** The whole site's numbers, how old they are, and whether they are live. */

import type { Api, Counts, ZoneCount } from "./api";
import { byId, setAttribute, setText } from "./element";
import { age, range, shown } from "./format";
import type { StreamState } from "./stream";

/** Heartbeats come every 5 s: numbers younger than this are as new as they can be. */
const CURRENT_MS = 8_000;
/** What the public is told is of the last full minute. */
const PUBLIC_MS = 68_000;

export interface Freshness {
  validAt: number | undefined; // Unix milliseconds
  now: number;
  state: StreamState;
  fresh: number; // partitions up to date, of `total`
  total: number;
  byMinute?: boolean; // what the public is told
}

/** Are the numbers behind, though the connection is there? */
export const delayed = ({ validAt, now, fresh, total, byMinute }: Freshness): boolean =>
  fresh < total || (validAt !== undefined && now - validAt > (byMinute ? PUBLIC_MS : CURRENT_MS));

export function stateInWords(freshness: Freshness): { state: string; text: string } {
  if (freshness.state === "reconnecting") return { state: "reconnecting", text: "Reconnecting" };
  if (freshness.state === "connecting") return { state: "connecting", text: "Connecting" };
  return delayed(freshness) ? { state: "delayed", text: "Delayed" } : { state: "live", text: "Live" };
}

export function ageInWords(freshness: Freshness): string {
  const { validAt, now, state, fresh, total } = freshness;
  if (validAt === undefined) return "Waiting for the first numbers";
  if (state === "live" && !delayed(freshness)) {
    return freshness.byMinute ? "Numbers of the last full minute, small ones hidden" : "Numbers up to date";
  }
  const parts = fresh < total ? `, ${fresh} of ${total} parts up to date` : "";
  return `Numbers from ${age(now - validAt)} ago${parts}`;
}

export class Totals {
  #validAt: number | undefined;
  #state: StreamState = "connecting";
  #fresh = 0;
  #total = 0;
  #byMinute = false;

  constructor(private readonly api: Api) {
    setInterval(() => this.#show(), 1_000);
  }

  heard(counts: Counts, site: ZoneCount | undefined): void {
    this.#fresh = counts.fresh;
    this.#total = counts.total;
    this.#byMinute = site?.person.told !== undefined;
    this.valid(counts.at);
    if (!site) return;
    for (const kind of ["person", "vehicle"] as const) {
      setText(byId(`total-${kind}`), shown(site[kind]));
      setText(byId(`range-${kind}`), range(site[kind]));
    }
  }

  /** All numbers shown hold at this instant. */
  valid(at: number): void {
    this.#validAt = at; // not the greatest so far: the server's clock may have been set back
    this.#show();
  }

  connection(state: StreamState): void {
    this.#state = state;
    this.#show();
  }

  #show(): void {
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
