/** An MQTT connection that reconnects with back-off, and that repeats nothing by itself. */

const mqtt = require("mqtt");
const { Backoff } = require("./backoff");

class Connection {
  #client;
  #timer;
  #backoff = new Backoff();
  #closed = false;

  /**
   * @param {string} url such as `mqtts://host:8883`
   * @param {object} options of mqtt.js: clientId, username, password, TLS
   * @param {{connected: function, lost: function, message?: function}} handlers
   *   `lost` gets the reason, or undefined if there is none
   */
  constructor(url, options, handlers) {
    this.url = url;
    this.options = { protocolVersion: 4, clean: true, keepalive: 30, ...options, reconnectPeriod: 0 };
    this.handlers = handlers;
    this.#connect();
  }

  get connected() {
    return this.#client?.connected ?? false;
  }

  /** Publish with QoS 1; `stored` is called after the acknowledgement, and never if the connection is lost before. */
  publish(topic, body, stored) {
    const client = this.#client;
    client.publish(topic, body, { qos: 1 }, (error) => {
      if (!error && client === this.#client) stored();
    });
  }

  /** Subscribe; `refused` is called if the broker does not permit it. */
  subscribe(topic, refused) {
    this.#client.subscribe(topic, { qos: 1 }, (error, granted) => {
      if (error || granted?.some(({ qos }) => qos >= 128)) refused();
    });
  }

  /** Disconnect; resolves when the connection is closed. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    return new Promise((resolve) => (client ? client.end(!client.connected, {}, () => resolve()) : resolve()));
  }

  #connect() {
    let reason;
    const client = mqtt.connect(this.url, this.options);
    this.#client = client;
    client.on("connect", () => {
      this.#backoff.reset();
      if (client === this.#client) this.handlers.connected();
    });
    client.on("error", (error) => {
      reason = error;
    });
    client.on("message", (topic, payload) => this.handlers.message?.(topic, payload));
    client.on("close", () => {
      client.end(true);
      if (this.#closed || client !== this.#client) return;
      this.#client = undefined;
      this.handlers.lost(reason);
      this.#timer = setTimeout(() => this.#connect(), this.#backoff.next());
    });
  }
}

module.exports = { Connection };
