import { CommandExecutor } from "./commands.js";
import { FixBuffer, type WaitingFix } from "./fix-buffer.js";
import { checkedPosition, type DevicePosition, payloadOf, positionOf } from "./positions.js";
import { COUNTED_REASONS, Reporter, type ReportReason, type ReportRules } from "./reporting.js";
import { retryDelayS } from "./retry-delay.js";
import { SiteAreas } from "./site-areas.js";
import type { FixStorage } from "./storage.js";
import { RejectedPayloadError, RetryLaterError, type Transport } from "./transport.js";

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
  acknowledged: number;
  /** Fixes that were dropped because the buffer was full or headcount rejected them. */
  dropped: number;
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
  #dropped = 0;
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
      dropped: this.#dropped,
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
    if (await this.#running) throw new Error("the device is running");
    for (const fix of (await this.#storage?.load()) ?? []) {
      this.#buffer.append(fix);
      this.#next = Math.max(this.#next, fix.number + 1);
    }
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

  async #keep(position: DevicePosition, reason: ReportReason): Promise<void> {
    const fix: WaitingFix = {
      number: this.#next++,
      t: position.t,
      isCounted: COUNTED_REASONS.has(reason),
      isUnjudged: this.#reporter.site === undefined,
      payload: payloadOf(position),
    };
    const dropped = this.#buffer.append(fix);
    await this.#storage?.put(fix);
    if (dropped) {
      this.#dropped++;
      await this.#storage?.remove([dropped.number]);
    }
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
        this.#problem = error instanceof Error ? error.message : String(error);
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
    try {
      await this.#transport.send(batch.map((fix) => fix.payload));
      this.#acknowledged += batch.length;
    } catch (error) {
      if (!(error instanceof RejectedPayloadError)) throw error;
      if (batch.length > 1) {
        for (const fix of batch) await this.#send([fix]);
        return;
      }
      this.#problem = error.message;
      this.#dropped++;
    }
    const numbers = batch.map((fix) => fix.number);
    this.#buffer.remove(new Set(numbers));
    await this.#storage?.remove(numbers);
    this.#changed();
  }

  #setSite(geojson: string): void {
    let site: SiteAreas;
    try {
      site = new SiteAreas(JSON.parse(geojson), this.#transport.identity.kind);
    } catch {
      return; // the device goes on with the site that it had
    }
    const isFirst = this.#reporter.site === undefined;
    this.#reporter.site = site;
    if (isFirst) this.#judgeAgain().catch(() => undefined);
    this.#changed();
    this.#wake();
  }

  /** Judges the positions that were reported without a site. */
  async #judgeAgain(): Promise<void> {
    const unjudged = this.#buffer.fixes.filter((fix) => fix.isUnjudged);
    const numbers = unjudged.map((fix) => fix.number);
    this.#buffer.remove(new Set(numbers));
    this.#reporter.forget();
    const kept = unjudged
      .map((fix) => positionOf(fix.payload))
      .map((position) => {
        const reason = this.#reporter.judge(position);
        return reason && this.#keep(position, reason);
      });
    await Promise.all(kept);
    await this.#storage?.remove(numbers);
  }

  #execute(payload: string): void {
    const answer = this.#commands.execute(payload, Date.now() / 1000);
    // an answer that is lost does not matter: the command comes again
    if (answer) this.#transport.answer(JSON.stringify(answer)).catch(() => undefined);
    this.#changed();
    this.#wake();
  }

  #become(connection: DeviceStatus["connection"]): void {
    this.#connection = connection;
    this.#changed();
  }

  #changed(): void {
    const { status } = this;
    for (const listener of this.#listeners) listener(status);
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
