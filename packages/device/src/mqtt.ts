import mqtt, { type MqttClient } from "mqtt";
import type { DeviceIdentity, Transport, TransportEvents } from "./transport.js";

const CONNECT_TIMEOUT_MS = 15_000;
const SUBSCRIPTION_REFUSED = 128;

export interface MqttOptions extends DeviceIdentity {
  /** `wss://host:9443/mqtt` or `ws:` in browsers; `mqtts://host:8883` or `mqtt:` too in Node.js. */
  url: string;
  /** The device's secret. */
  secret?: string | undefined;
  /** Seconds between keep-alive messages; a lost connection is detected after 1.5 times that. */
  keepaliveS?: number;
}

/** MQTT 3.1.1 by mqtt.js: TCP or WebSocket, with the site, commands, the status and a last will. */
export class MqttTransport implements Transport {
  readonly identity: DeviceIdentity;
  readonly #options: MqttOptions;
  readonly #topic: string;
  #client: MqttClient | undefined;
  #lost: Promise<never> | undefined;

  constructor(options: MqttOptions) {
    const { site, kind, id } = options;
    this.identity = { site, kind, id };
    this.#options = options;
    this.#topic = `headcount/${site}/${kind}/${id}`;
  }

  async open(events: TransportEvents): Promise<void> {
    const { url, id, secret, site, keepaliveS = 60 } = this.#options;
    const status = `${this.#topic}/status`;
    const client = await mqtt.connectAsync(
      url,
      {
        clientId: id,
        ...(secret === undefined ? {} : { username: id, password: secret }),
        protocolVersion: 4,
        clean: true,
        keepalive: keepaliveS,
        connectTimeout: CONNECT_TIMEOUT_MS,
        reconnectPeriod: 0, // the device connects again, with jitter
        will: { topic: status, payload: "offline", qos: 1, retain: false },
      },
      false,
    );
    this.#client = client;
    this.#lost = new Promise((_, reject) => {
      client.once("close", () => {
        const reason = new Error("the MQTT connection is closed");
        reject(reason);
        if (this.#client === client) {
          this.#client = undefined;
          events.closed(reason);
        }
      });
    });
    this.#lost.catch(() => undefined);
    client.on("error", () => client.end(true));
    client.on("message", (topic, payload) => {
      if (topic === `${this.#topic}/cmd`) events.command(payload.toString());
      else events.site(payload.toString());
    });
    const granted = await this.#unlessLost(
      client.subscribeAsync([`${this.#topic}/cmd`, `headcount/${site}/site`], { qos: 1 }),
    );
    const refused = granted.find((each) => each.qos === SUBSCRIPTION_REFUSED);
    if (refused !== undefined) {
      await this.close();
      throw new Error(`the broker refuses the subscription to ${refused.topic}`);
    }
    await this.#publish("status", "online");
  }

  async send(payloads: readonly string[]): Promise<number> {
    await Promise.all(payloads.map((payload) => this.#publish("fix", payload)));
    return payloads.length;
  }

  async answer(payload: string): Promise<void> {
    await this.#publish("ack", payload);
  }

  async close(): Promise<void> {
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    // the last will is not sent after a clean end
    const stopped = client.publishAsync(`${this.#topic}/status`, "offline", { qos: 1 }).then(() => client.endAsync());
    await this.#unlessLost(stopped).catch(() => undefined);
  }

  async #publish(what: string, payload: string): Promise<void> {
    if (this.#client === undefined) throw new Error("the MQTT connection is closed");
    await this.#unlessLost(this.#client.publishAsync(`${this.#topic}/${what}`, payload, { qos: 1 }));
  }

  #unlessLost<T>(result: Promise<T>): Promise<T> {
    result.catch(() => undefined);
    return Promise.race([result, this.#lost as Promise<never>]);
  }
}
