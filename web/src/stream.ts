/** The live stream of counts: opens it, notices when it has gone quiet, and opens it again. */

export type StreamState = "connecting" | "live" | "reconnecting";

/** As much of an `EventSource` as is used here. */
export interface Source {
  addEventListener(type: string, listener: (event: { data?: unknown }) => void): void;
  close(): void;
}

export interface StreamEvents {
  counts(data: unknown): void;
  ping(data: unknown): void;
  state(state: StreamState): void;
}

/** No message for this long, heartbeats included (one every 5 s): the connection is dead. */
export const SILENCE_MS = 12_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 8_000;

/**
 * A stream that never gives up.
 *
 * The browser's own retry is not relied upon: it neither notices a connection that is open but dead
 * nor tries again after an HTTP error. Every retry starts with a full message from the server.
 */
export class CountsStream {
  #source: Source | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #state: StreamState = "connecting";
  #failures = 0;
  #heardAt = 0;

  constructor(
    private readonly open: () => Source,
    private readonly events: StreamEvents,
    private readonly random: () => number = Math.random,
  ) {}

  start(): void {
    this.events.state(this.#state);
    this.#connect();
  }

  /** The page is looked at again, or the network is back: find out at once instead of waiting. */
  wake(): void {
    const quiet = Date.now() - this.#heardAt > SILENCE_MS;
    if (this.#state === "reconnecting" || quiet) this.#connect();
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
    this.#watch();
    const heard = (tell: (data: unknown) => void) => (event: { data?: unknown }) => {
      if (source === this.#source) this.#hear(event.data, tell);
    };
    source.addEventListener("counts", heard(this.events.counts));
    source.addEventListener("ping", heard(this.events.ping));
    source.addEventListener("error", () => {
      if (source === this.#source) this.#lose();
    });
  }

  #hear(text: unknown, tell: (data: unknown) => void): void {
    this.#heardAt = Date.now();
    this.#failures = 0;
    this.#watch();
    this.#become("live");
    tell(typeof text === "string" && text !== "" ? JSON.parse(text) : undefined);
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lose(), SILENCE_MS);
  }

  #lose(): void {
    this.stop();
    this.#become("reconnecting");
    const wait = Math.min(FIRST_RETRY_MS * 2 ** this.#failures, LAST_RETRY_MS);
    this.#failures += 1;
    // Spread, so that a thousand pages don't come back to a restarted server in the same instant.
    this.#timer = setTimeout(() => this.#connect(), wait * (0.75 + 0.5 * this.random()));
  }

  #become(state: StreamState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.events.state(state);
  }
}
