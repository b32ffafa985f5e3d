/** The live stream of counts: opens it, detects when it has stalled, and reconnects. */

import type { Body, PingBody } from "./api";

export type StreamState = "connecting" | "live" | "reconnecting" | "removed";

/** The part of `EventSource` that is used here. */
export interface Source {
  addEventListener(type: string, listener: (event: { data?: unknown }) => void): void;
  close(): void;
}

export interface StreamEvents {
  counts(body: Body<"/v1/sites/{site}/counts"> & { full?: boolean }): void;
  ping(body: PingBody): void;
  state(state: StreamState): void;
  /** Whether the site is gone, for good; checked when the stream was lost. */
  isRemoved(): Promise<boolean>;
}

/** Without a message for this long the connection is dead: the server pings every 5 s. */
export const TIMEOUT_MS = 12_000;
const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 8_000;

/**
 * A stream that reconnects until it is stopped.
 *
 * The browser's own retry isn't enough: it neither notices a connection that is open but dead nor retries after an
 * HTTP error. Every connection starts with a full message from the server.
 */
export class CountsStream {
  #source: Source | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #state: StreamState = "connecting";
  #failures = 0;
  #lastMessageAt = 0;

  constructor(
    private readonly open: () => Source,
    private readonly events: StreamEvents,
    private readonly random: () => number = Math.random,
  ) {}

  start(): void {
    this.events.state(this.#state);
    this.#connect();
  }

  /** Reconnects without waiting, for when the page is visible again or the network is back. */
  wake(): void {
    if (this.#state === "removed") return;
    const stalled = Date.now() - this.#lastMessageAt > TIMEOUT_MS;
    if (this.#state === "reconnecting" || stalled) this.#connect();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  #connect(): void {
    this.stop();
    const source = this.open();
    this.#source = source;
    this.#restartTimeout();
    // messages of an earlier source are ignored
    const listen = (type: string, handle: (data: unknown) => void): void =>
      source.addEventListener(type, ({ data }) => {
        if (source === this.#source) handle(data);
      });
    listen("counts", (data) => this.#receive(data, this.events.counts));
    listen("ping", (data) => this.#receive(data, this.events.ping));
    listen("error", () => this.#reconnectLater());
  }

  #receive<Data>(text: unknown, handle: (data: Data) => void): void {
    this.#lastMessageAt = Date.now();
    this.#failures = 0;
    this.#restartTimeout();
    this.#setState("live");
    handle(JSON.parse(String(text)));
  }

  #restartTimeout(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reconnectLater(), TIMEOUT_MS);
  }

  #reconnectLater(): void {
    this.stop();
    this.#setState("reconnecting");
    const wait = Math.min(MIN_RETRY_MS * 2 ** this.#failures, MAX_RETRY_MS);
    this.#failures += 1;
    // Jitter, so that a thousand pages don't reconnect to a restarted server at the same time.
    this.#timer = setTimeout(() => this.#reconnect(), wait * (0.75 + 0.5 * this.random()));
  }

  #reconnect(): void {
    this.#connect();
    this.events.isRemoved().then(
      (removed) => removed && this.#state === "reconnecting" && this.#end(),
      () => undefined, // no response: the next attempt checks again
    );
  }

  #end(): void {
    this.stop();
    this.#setState("removed");
  }

  #setState(state: StreamState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.events.state(state);
  }
}
