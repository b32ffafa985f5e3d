// @ts-check
/** A TCP relay in front of a server, whose connections can be cut, or kept open without passing data. */
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** Time after a failure in which the browser's console may still report it, also on a busy machine. */
const ECHO_MS = 60_000;

export class Relay {
  #port = 0;
  #muted = false;
  #failingUntil = 0;
  /** @type {Set<import("node:net").Socket>} */
  #sockets = new Set();
  /** @type {import("node:net").Server | undefined} */
  #listener;

  /** @param {string} target the server's address */
  constructor(target) {
    this.target = new URL(target);
  }

  get url() {
    return `http://127.0.0.1:${this.#port}${this.target.pathname}`;
  }

  /** Whether the server is unreachable now or was within the last seconds. */
  get failing() {
    return this.#muted || this.#listener === undefined || Date.now() < this.#failingUntil;
  }

  /** Listens, on the same port again after a cut. */
  async open() {
    const listener = createServer((client) => this.#pass(client));
    listener.listen(this.#port, "127.0.0.1");
    await once(listener, "listening");
    this.#port = /** @type {import("node:net").AddressInfo} */ (listener.address()).port;
    this.#listener = listener;
    this.#failingUntil = Date.now() + ECHO_MS;
  }

  /** Breaks every connection and accepts no new one, as if the server had stopped. */
  async cut() {
    const listener = this.#listener;
    this.#listener = undefined;
    for (const socket of this.#sockets) socket.destroy();
    if (listener) await new Promise((done) => listener.close(done));
  }

  /** Keeps connections open but passes nothing on, as if the network had failed. */
  mute() {
    this.#muted = true;
  }

  /** Passes data on again, and breaks the connections that missed some. */
  unmute() {
    this.#muted = false;
    for (const socket of this.#sockets) socket.destroy();
    this.#failingUntil = Date.now() + ECHO_MS;
  }

  /** @param {import("node:net").Socket} client */
  #pass(client) {
    const server = connect(Number(this.target.port || 80), this.target.hostname);
    for (const [from, to] of /** @type {const} */ ([
      [client, server],
      [server, client],
    ])) {
      this.#sockets.add(from);
      from.on("data", (data) => this.#muted || to.write(data));
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }
}
