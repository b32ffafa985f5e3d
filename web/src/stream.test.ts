import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CountsStream, type Source, type StreamState, TIMEOUT_MS } from "./stream";

/** A source whose messages the test sends. */
class ScriptedSource implements Source {
  closed = false;
  readonly #listeners = new Map<string, (event: { data?: unknown }) => void>();

  addEventListener(type: string, listener: (event: { data?: unknown }) => void): void {
    this.#listeners.set(type, listener);
  }

  close(): void {
    this.closed = true;
  }

  send(type: string, data?: unknown): void {
    this.#listeners.get(type)?.({ data: data === undefined ? undefined : JSON.stringify(data) });
  }
}

function begin(isRemoved = false): {
  sources: ScriptedSource[];
  states: StreamState[];
  received: unknown[];
  stream: CountsStream;
} {
  const sources: ScriptedSource[] = [];
  const states: StreamState[] = [];
  const received: unknown[] = [];
  const open = (): Source => {
    const source = new ScriptedSource();
    sources.push(source);
    return source;
  };
  const events = {
    counts: (data: unknown) => received.push(data),
    ping: (data: unknown) => received.push(data),
    state: (state: StreamState) => states.push(state),
    isRemoved: () => Promise.resolve(isRemoved),
  };
  const stream = new CountsStream(open, events, () => 0.5);
  stream.start();
  return { sources, states, received, stream };
}

describe("CountsStream", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("is live from the first message on, and passes messages on", () => {
    const { sources, states, received } = begin();
    sources[0]?.send("counts", { at: 1 });
    sources[0]?.send("ping", { at: 2 });
    expect(states).toEqual(["connecting", "live"]);
    expect(received).toEqual([{ at: 1 }, { at: 2 }]);
  });

  it("ends when the site was removed", async () => {
    const { sources, states, stream } = begin(true);
    sources[0]?.send("counts", { at: 1 });
    sources[0]?.send("error");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(states).toEqual(["connecting", "live", "reconnecting", "removed"]);
    stream.wake();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sources.map(({ closed }) => closed)).toEqual([true, true]);
  });

  it("opens a new source after an error, waiting longer each time, at most 8 s", () => {
    const { sources, states } = begin();
    for (const wait of [1_000, 2_000, 4_000, 8_000, 8_000]) {
      sources.at(-1)?.send("error");
      const before = sources.length;
      vi.advanceTimersByTime(wait - 1);
      expect(sources).toHaveLength(before);
      vi.advanceTimersByTime(1);
      expect(sources).toHaveLength(before + 1);
    }
    expect(states).toEqual(["connecting", "reconnecting"]);
    expect(sources.slice(0, -1).every((source) => source.closed)).toBe(true);
  });

  it("starts with the short wait again after a message", () => {
    const { sources, states } = begin();
    sources[0]?.send("error");
    vi.advanceTimersByTime(1_000);
    sources[1]?.send("counts", {});
    sources[1]?.send("error");
    vi.advanceTimersByTime(1_000);
    expect(sources).toHaveLength(3);
    expect(states).toEqual(["connecting", "reconnecting", "live", "reconnecting"]);
  });

  it("reconnects after a connection is silent, and keeps one with pings", () => {
    const { sources, states } = begin();
    for (let i = 0; i < 10; i += 1) {
      sources[0]?.send("ping", {});
      vi.advanceTimersByTime(5_000);
    }
    expect(states).toEqual(["connecting", "live"]);
    vi.advanceTimersByTime(TIMEOUT_MS);
    expect(states.at(-1)).toBe("reconnecting");
    expect(sources[0]?.closed).toBe(true);
  });

  it("ignores messages of an earlier source", () => {
    const { sources, states, received } = begin();
    sources[0]?.send("error");
    sources[0]?.send("counts", {});
    sources[0]?.send("error");
    expect(received).toEqual([]);
    expect(states).toEqual(["connecting", "reconnecting"]);
  });

  it("reconnects without waiting on wake, unless it is live", () => {
    const { sources, stream } = begin();
    sources[0]?.send("counts", {});
    stream.wake();
    expect(sources).toHaveLength(1);
    sources[0]?.send("error");
    stream.wake();
    expect(sources).toHaveLength(2);
  });
});
