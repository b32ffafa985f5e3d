/** What a transport reports to its device. */
export interface TransportEvents {
  /** The site's GeoJSON was received. */
  site(geojson: string): void;
  /** A command was received. */
  command(payload: string): void;
  /** The connection ended without `close`. */
  closed(reason: Error): void;
}

/** A connection between one device and headcount. `MqttTransport` and `HttpTransport` implement it. */
export interface Transport {
  readonly identity: DeviceIdentity;
  /** Connects once; rejects if that fails. The device calls it again later. */
  open(events: TransportEvents): Promise<void>;
  /**
   * Sends payloads of fixes in order. Resolves with the number of those that headcount has stored; it will never
   * store the others.
   */
  send(payloads: readonly string[]): Promise<number>;
  /** Sends the answer to a command. */
  answer(payload: string): Promise<void>;
  /** Ends the connection, and what `open` started. */
  close(): Promise<void>;
}

/** The server asks to wait before the next attempt. */
export class RetryLaterError extends Error {
  override readonly name = "RetryLaterError";

  /** @param delayS minimum delay in seconds */
  constructor(
    message: string,
    readonly delayS: number,
  ) {
    super(message);
  }
}

/** The identity of a registered device. */
export interface DeviceIdentity {
  site: string;
  kind: "person" | "vehicle";
  id: string;
}
