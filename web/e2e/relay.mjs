// @ts-check
/** A TCP relay before a server, whose connections can be cut, or kept open and silent. */
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** How long after a trouble its echo may still be in the browser's console. */
const ECHO_MS = 3_000;

export class Relay {
  #port = 0;
  #muted = false;
  #troubledUntil = 0;
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

  /** Is the server out of reach now, or was it a moment ago? */
  get troubled() {
    return this.#muted || this.#listener === undefined || Date.now() < this.#troubledUntil;
  }

  /** Listens, again on the same port. */
  async mend() {
    const listener = createServer((client) => this.#pass(client));
    listener.listen(this.#port, "127.0.0.1");
    await once(listener, "listening");
    this.#port = /** @type {import("node:net").AddressInfo} */ (listener.address()).port;
    this.#listener = listener;
    this.#troubledUntil = Date.now() + ECHO_MS;
  }

  /** Breaks every connection and takes no new one, as when the server has gone. */
  async cut() {
    const listener = this.#listener;
    this.#listener = undefined;
    for (const socket of this.#sockets) socket.destroy();
    if (listener) await new Promise((done) => listener.close(done));
  }

  /** Keeps connections open but passes nothing on, as when a network has gone. */
  mute() {
    this.#muted = true;
  }

  /** Passes on again; the connections that missed something can't be used any more. */
  unmute() {
    this.#muted = false;
    for (const socket of this.#sockets) socket.destroy();
    this.#troubledUntil = Date.now() + ECHO_MS;
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
