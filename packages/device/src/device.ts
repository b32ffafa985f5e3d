import { CommandExecutor } from "./commands.js";
import { FixBuffer, type WaitingFix } from "./fix-buffer.js";
import { checkedPosition, type DevicePosition, payloadOf, positionOf } from "./positions.js";
import { COUNTED_REASONS, Reporter, type ReportReason, type ReportRules } from "./reporting.js";
import { retryDelayS } from "./retry-delay.js";
import { SiteAreas } from "./site-areas.js";
import type { FixStorage } from "./storage.js";
import { RetryLaterError, type Transport } from "./transport.js";

/** Fixes that are sent before the first of them is acknowledged. */
const BATCH = 50;
const MAX_SLEEP_MS = 3_600_000;
const STOP_POLL_MS = 20;

export interface DeviceOptions {
  transport: Transport;
  /** Keeps waiting fixes over a restart; without it they are in memory only. */
  storage?: FixStorage | undefined;
  rules?: Partial<ReportRules> | undefined;
  /** Maximum number of waiting fixes. */
  capacity?: number | undefined;
  /** Shows the text of a command `message`; returns whether a person can read it. */
  showMessage?: ((text: string) => boolean) | undefined;
}

/** The state of a device, for display. */
export interface DeviceStatus {
  connection: "stopped" | "connecting" | "connected" | "waiting";
  /** Why the last connection failed or ended. */
  problem: string;
  hasSite: boolean;
  /** The device is silent because it is not on the site. */
  isOffSite: boolean;
  /** Unix seconds until which the device is silent by command. */
  pausedUntil: number;
  /** A report is requested, and the next position will be reported. */
  isRequested: boolean;
  /** Fixes that wait for an acknowledgement. */
  waiting: number;
  /** Fixes that headcount has stored, since the start. */
  acknowledged: number;
  /** Fixes that headcount will never store, since the start. */
  refused: number;
}

/**
 * A device: decides which positions to report, and keeps each report until headcount has stored it.
 *
 *     const device = new Device({ transport: new HttpTransport({ url, site, kind, id, secret }) });
 *     await device.start();
 *     await device.report({ t: Date.now() / 1000, lat: 52.67345, lon: -8.57312, acc: 8 });
 *     await device.stop();
 */
export class Device {
  readonly #transport: Transport;
  readonly #storage: FixStorage | undefined;
  readonly #reporter: Reporter;
  readonly #commands: CommandExecutor;
  readonly #listeners = new Set<(status: DeviceStatus) => void>();
  readonly #buffer: FixBuffer;
  #next = 0;
  #connection: DeviceStatus["connection"] = "stopped";
  #problem = "";
  #acknowledged = 0;
  #refused = 0;
  #running: Promise<void> | undefined;
  #isStopping = false;
  /** Resolves a wait for new work: a fix, a site, the end of the connection, a stop. */
  #wake: () => void = () => undefined;

  constructor({ transport, storage, rules, capacity, showMessage }: DeviceOptions) {
    this.#transport = transport;
    this.#storage = storage;
    this.#buffer = new FixBuffer(capacity);
    this.#reporter = new Reporter(transport.identity.kind, rules);
    this.#commands = new CommandExecutor(this.#reporter, showMessage);
  }

  get status(): DeviceStatus {
    const { state, site, isOffSite } = this.#reporter;
    return {
      connection: this.#connection,
      problem: this.#problem,
      hasSite: site !== undefined,
      isOffSite,
      pausedUntil: state.pausedUntil,
      isRequested: state.isRequested,
      waiting: this.#buffer.fixes.length,
      acknowledged: this.#acknowledged,
      refused: this.#refused,
    };
  }

  /** Seconds after which a device that does not move reports again. */
  get intervalS(): number {
    return this.#reporter.intervalS;
  }

  /** Whether a position may be on the site, or within this distance of it; true while no site is known. */
  isNear(position: DevicePosition, metres: number): boolean {
    return this.#reporter.site?.isNear(position, metres) ?? true;
  }

  /** Calls a function after each change of the status; returns a function that ends this. */
  onChange(listener: (status: DeviceStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads the stored fixes, and starts to connect. */
  async start(): Promise<void> {
    if (this.#running !== undefined) throw new Error("the device is running");
    await this.#restore();
    this.#isStopping = false;
    this.#running = this.#run();
  }

  /** Judges a position, and keeps it if it is to be reported. Resolves, with the reason, when it is stored. */
  async report(position: DevicePosition): Promise<ReportReason | undefined> {
    const reason = this.#reporter.judge(checkedPosition(position));
    if (reason) await this.#keep(position, reason);
    this.#changed();
    return reason;
  }

  /**
   * Ends the connection.
   *
   * @param withinS time in which waiting fixes are still sent
   */
  async stop(withinS = 5): Promise<void> {
    const deadline = Date.now() + withinS * 1000;
    while (this.#connection === "connected" && this.#sendable().length && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, STOP_POLL_MS));
    this.#isStopping = true;
    this.#wake();
    await this.#running;
    this.#running = undefined;
    await this.#storage?.close();
  }

  async #restore(): Promise<void> {
    const stored = await this.#storage?.load();
    for (const fix of stored?.fixes ?? []) {
      const dropped = this.#buffer.append(fix);
      if (dropped) await this.#store((storage) => storage.remove([dropped.number]));
      this.#next = Math.max(this.#next, fix.number + 1);
    }
    const { site, state } = stored?.saved ?? {};
    if (site) this.#reporter.site = this.#parseSite(site);
    try {
      if (state) this.#reporter.restore(state);
    } catch {} // a device without a memory reports more, not less
  }

  async #keep(position: DevicePosition, reason: ReportReason): Promise<void> {
    const fix: WaitingFix = {
      number: this.#next++,
      t: position.t,
      isCounted: COUNTED_REASONS.has(reason),
      payload: payloadOf(position),
    };
    const dropped = this.#buffer.append(fix);
    const state = this.#reporter.encode();
    await this.#store((storage) => storage.put(fix, state));
    if (dropped) await this.#store((storage) => storage.remove([dropped.number]));
    this.#wake();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#isStopping) {
      let retryAfterS = 0;
      try {
        this.#become("connecting");
        for await (const _ of this.#deliveries()) failures = 0;
      } catch (error) {
        retryAfterS = error instanceof RetryLaterError ? error.delayS : 0;
        this.#fail(error);
      }
      await this.#transport.close().catch(() => undefined);
      this.#become("waiting");
      const until = Date.now() + retryDelayS(failures++, Math.random(), retryAfterS) * 1000;
      while (!this.#isStopping && Date.now() < until) await this.#sleep(until - Date.now());
    }
    this.#become("stopped");
  }

  /** Connects, and sends what waits until the device stops; yields after each acknowledgement. */
  async *#deliveries(): AsyncGenerator<void> {
    let ended: Error | undefined;
    await this.#transport.open({
      site: (geojson) => this.#setSite(geojson),
      command: (payload) => this.#execute(payload),
      closed: (reason) => {
        ended = reason;
        this.#wake();
      },
    });
    this.#problem = "";
    this.#become("connected");
    while (!this.#isStopping) {
      if (ended) throw ended;
      const batch = this.#sendable();
      if (batch.length) {
        await this.#send(batch);
        yield;
      } else await this.#sleep(Math.max(this.#reporter.state.pausedUntil * 1000 - Date.now(), 0) || MAX_SLEEP_MS);
    }
  }

  /** The fixes to be sent next: none while no site is known, or during a pause. */
  #sendable(): WaitingFix[] {
    const { site, state } = this.#reporter;
    return site && Date.now() >= state.pausedUntil * 1000 ? this.#buffer.fixes.slice(0, BATCH) : [];
  }

  async #send(batch: WaitingFix[]): Promise<void> {
    const stored = await this.#transport.send(batch.map((fix) => fix.payload));
    this.#acknowledged += stored;
    this.#refused += batch.length - stored;
    const numbers = batch.map((fix) => fix.number);
    this.#buffer.remove(new Set(numbers));
    await this.#store((storage) => storage.remove(numbers));
    this.#changed();
  }

  #parseSite(geojson: string): SiteAreas | undefined {
    try {
      return new SiteAreas(JSON.parse(geojson), this.#transport.identity.kind);
    } catch {
      return undefined; // the device goes on with the site that it has
    }
  }

  #setSite(geojson: string): void {
    const site = this.#parseSite(geojson);
    if (site === undefined) return;
    const isFirst = this.#reporter.site === undefined;
    this.#reporter.site = site;
    void this.#store((storage) => storage.save("site", geojson));
    if (isFirst) void this.#judgeAgain();
    this.#changed();
    this.#wake();
  }

  /** Judges the positions again that were reported while no site was known. */
  async #judgeAgain(): Promise<void> {
    const { fixes } = this.#buffer;
    const numbers = fixes.map((fix) => fix.number);
    this.#buffer.remove(new Set(numbers));
    this.#reporter.forget();
    const kept = fixes
      .map((fix) => positionOf(fix.payload))
      .map((position) => {
        const reason = this.#reporter.judge(position);
        return reason && this.#keep(position, reason);
      });
    await Promise.all(kept);
    await this.#store((storage) => storage.remove(numbers));
  }

  #execute(payload: string): void {
    const answer = this.#commands.execute(payload, Date.now() / 1000);
    // an answer that is lost does not matter: the command comes again
    if (answer) this.#transport.answer(JSON.stringify(answer)).catch(() => undefined);
    void this.#store((storage) => storage.save("state", this.#reporter.encode()));
    this.#changed();
    this.#wake();
  }

  /** Changes the storage; if that fails, such as on a full disk, the device goes on with its memory. */
  async #store(change: (storage: FixStorage) => Promise<void>): Promise<void> {
    try {
      if (this.#storage) await change(this.#storage);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#problem = error instanceof Error ? error.message : String(error);
  }

  #become(connection: DeviceStatus["connection"]): void {
    this.#connection = connection;
    this.#changed();
  }

  #changed(): void {
    const { status } = this;
    for (const listener of this.#listeners)
      try {
        listener(status);
      } catch (error) {
        // a defect of the program: it is reported as uncaught, and the device goes on
        queueMicrotask(() => {
          throw error;
        });
      }
  }

  async #sleep(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.min(ms, MAX_SLEEP_MS));
      this.#wake = resolve;
    });
    clearTimeout(timer);
  }
}
