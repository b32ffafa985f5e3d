import type { DeviceIdentity, Transport, TransportEvents } from "./transport.js";

const RETRY_MS = 600_000;

/** Uses the second transport while the first cannot connect, for example HTTP where a proxy blocks WebSocket. */
export class FallbackTransport implements Transport {
  readonly #first: Transport;
  readonly #second: Transport;
  readonly #retryMs: number;
  #open: Transport | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param retryMs time until the first is tried again */
  constructor(first: Transport, second: Transport, retryMs = RETRY_MS) {
    this.#first = first;
    this.#second = second;
    this.#retryMs = retryMs;
  }

  get identity(): DeviceIdentity {
    return this.#first.identity;
  }

  async open(events: TransportEvents): Promise<void> {
    await this.close();
    try {
      await this.#first.open(events);
      this.#open = this.#first;
    } catch {
      await this.#second.open(events);
      this.#open = this.#second;
      this.#timer = setTimeout(() => events.closed(new Error("trying the first transport again")), this.#retryMs);
      (this.#timer as { unref?: () => void }).unref?.();
    }
  }

  send(payloads: readonly string[]): Promise<number> {
    return this.#used().send(payloads);
  }

  answer(payload: string): Promise<void> {
    return this.#used().answer(payload);
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    const open = this.#open;
    this.#open = undefined;
    await open?.close();
  }

  #used(): Transport {
    if (this.#open === undefined) throw new Error("no transport is open");
    return this.#open;
  }
}
