/** A transport without a network: stores every fix, and lets a test send the site and commands. */
import type { Transport, TransportEvents } from "../src/transport.js";

export const SITE = {
  type: "FeatureCollection",
  features: [
    {
      type: "Feature",
      properties: { role: "site", id: "campus" },
      geometry: {
        type: "Polygon",
        coordinates: [
          [
            [-8.58, 52.67],
            [-8.57, 52.67],
            [-8.57, 52.68],
            [-8.58, 52.68],
            [-8.58, 52.67],
          ],
        ],
      },
    },
  ],
};
export const INSIDE = { latitude: 52.675, longitude: -8.575 };
export const FAR = { latitude: 52.7, longitude: -8.575 };

export class TestTransport implements Transport {
  readonly identity = { site: "campus", kind: "person", id: "x" } as const;
  readonly sent: string[] = [];
  readonly answers: string[] = [];
  readonly failures: Error[] = [];
  attempts = 0;
  /** Fixes of each request that are not stored. */
  refused = 0;
  events: TransportEvents | undefined;

  /** @param site what it receives when it connects */
  constructor(private readonly site: unknown = SITE) {}

  async open(events: TransportEvents): Promise<void> {
    this.attempts++;
    this.events = events;
    const failure = this.failures.shift();
    if (failure) throw failure;
    if (this.site) events.site(JSON.stringify(this.site));
  }

  async send(payloads: readonly string[]): Promise<number> {
    this.sent.push(...payloads);
    return payloads.length - this.refused;
  }

  async answer(payload: string): Promise<void> {
    this.answers.push(payload);
  }

  async close(): Promise<void> {}
}
