/** headcount-fix: send fixes through a queue that survives disconnects. */

const { randomUUID } = require("node:crypto");
const path = require("node:path");
const { ApiError, fetchJson } = require("./api");
const { Backoff } = require("./backoff");
const { Connection } = require("./connection");
const { Queue } = require("./queue");

/** The broker takes no larger messages: it would close the connection again and again. */
const MAX_BODY_BYTES = 60 << 10;
/** Messages that may wait for their acknowledgement. */
const WINDOW = 20;
/** Fixes of one HTTP request. */
const BATCH = 100;
const STATUS_INTERVAL_MS = 250;
/** Answers after which the same request can never succeed. */
const FINAL = new Set([400, 413, 415, 422]);
/** Queues without a file, from the close of a node to its next start in the same process: id → entries. */
const kept = new Map();

module.exports = (RED) => {
  class FixNode {
    constructor(config) {
      RED.nodes.createNode(this, config);
      this.server = RED.nodes.getNode(config.server);
      this.kind = config.kind;
      this.format = config.format;
      this.device = this.credentials.device;
      this.secret = this.credentials.secret;
      this.rejected = 0;
      this.on("input", (msg, _send, done) => this.take(msg, done));
      this.on("close", (removed, done) => this.end(removed).then(() => done(), done));
      const usesHttp = config.transport === "http";
      if (!(usesHttp ? this.server?.url : this.server?.broker)) {
        this.state = ["red", "headcount.status.unconfigured"];
        this.showStatus();
        return;
      }
      const file = path.join(RED.settings.userDir, "headcount", `${this.id}.queue`);
      this.queue = new Queue(Number(config.limit) || 10_000, config.keep ? file : undefined);
      if (!config.keep) this.queue.adopt(kept.get(this.id) ?? []);
      kept.delete(this.id);
      this.sender = usesHttp ? new HttpSender(this) : new MqttSender(this);
      this.setState("yellow", "headcount.status.connecting");
      this.sender.start();
    }

    take(msg, done) {
      if (!this.queue) return done(new Error(RED._("headcount.error.unconfigured")));
      const dropped = this.queue.dropped;
      try {
        const topic = this.topic(msg);
        const bodies = (Array.isArray(msg.payload) ? msg.payload : [msg.payload]).map((each) => this.body(each));
        const settled = doneAfter(bodies.length, done);
        for (const body of bodies) {
          const oldest = this.queue.push(topic, body, settled);
          oldest?.done?.(new Error(RED._("headcount.error.dropped", { limit: this.queue.max })));
        }
      } catch (error) {
        return done(error);
      }
      if (this.queue.dropped > dropped) this.warnOnce("headcount.error.dropped", { limit: this.queue.max });
      this.sender.pump();
      this.showStatus();
    }

    /** The topic of a message: that of the device, or that of the format. */
    topic(msg) {
      if (this.format !== "fix") return this.format;
      const device = this.secret ? this.device : (msg.device ?? this.device);
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(device ?? "")) throw new Error(RED._("headcount.error.device"));
      return `headcount/${this.server.site}/${this.kind}/${device}/fix`;
    }

    /** The body of a fix; one without a time gets the present one, which it keeps while it waits. */
    body(payload) {
      let body = Buffer.isBuffer(payload) ? payload.toString() : payload;
      if (typeof body === "object" && body !== null) {
        const timed = ["t", "tst", "timestamp", "ts"].some((name) => body[name] !== undefined);
        body = JSON.stringify(timed ? body : { ...body, t: Date.now() / 1000 });
      }
      if (typeof body !== "string" || !body.trim()) throw new Error(RED._("headcount.error.payload"));
      if (this.format === "fix" && !isFix(body)) throw new Error(RED._("headcount.error.fix"));
      if (Buffer.byteLength(body) > MAX_BODY_BYTES) throw new Error(RED._("headcount.error.size"));
      return body;
    }

    /** A message is stored by headcount, or refused for good. */
    settle(entry, problem) {
      this.queue.acknowledge(entry);
      if (problem) this.rejected++;
      entry.done?.(problem && new Error(problem));
      this.showStatus();
    }

    setState(fill, text, problem) {
      if (problem && problem !== this.problem) this.warn(problem);
      this.problem = problem;
      this.state = [fill, text];
      this.showStatus();
    }

    warnOnce(key, values) {
      if (this.warned === key) return;
      this.warned = key;
      this.warn(RED._(key, values));
    }

    /** Show the state and the numbers of messages, at most four times a second. */
    showStatus() {
      this.statusTimer ??= setTimeout(() => {
        this.statusTimer = undefined;
        const [fill, text] = this.state;
        const parts = [RED._(text)];
        const counts = { waiting: this.queue?.size, dropped: this.queue?.dropped, rejected: this.rejected };
        for (const [name, number] of Object.entries(counts)) {
          if (number) parts.push(RED._(`headcount.status.${name}`, { number }));
        }
        this.status({ fill, shape: fill === "green" ? "dot" : "ring", text: parts.join(", ") });
      }, STATUS_INTERVAL_MS);
    }

    async end(removed) {
      clearTimeout(this.statusTimer);
      await this.sender?.close();
      if (!this.queue) return;
      if (removed) this.queue.remove();
      else if (this.queue.file) this.queue.close();
      else
        kept.set(
          this.id,
          this.queue.entries.map(({ topic, body }) => ({ topic, body })),
        );
    }
  }

  RED.nodes.registerType("headcount-fix", FixNode, {
    credentials: { device: { type: "text" }, secret: { type: "password" } },
  });
};

/** A function that calls `done` when it was called for all fixes of a message, with the first problem of them. */
function doneAfter(count, done) {
  let left = count;
  let problem;
  if (left === 0) done();
  return (error) => {
    problem ??= error;
    if (--left === 0) done(problem);
  };
}

function isFix(body) {
  try {
    const { lat, lon } = JSON.parse(body);
    return Number.isFinite(lat) && Number.isFinite(lon);
  } catch {
    return false;
  }
}

/** Publishes with QoS 1, in order. After a lost connection, everything that was not acknowledged is sent again. */
class MqttSender {
  constructor(node) {
    this.node = node;
  }

  start() {
    const { node } = this;
    const signIn = node.secret ? { username: node.device, password: node.secret } : {};
    const clientId = `${node.secret ? node.device : "nodered"}-${node.id}`;
    this.connection = new Connection(
      node.server.broker,
      { ...node.server.tlsOptions(), ...signIn, clientId },
      {
        connected: () => {
          node.setState("green", "headcount.status.connected");
          for (const entry of node.queue.entries) entry.sent = false;
          this.pump();
        },
        lost: (reason) =>
          node.setState("red", "headcount.status.disconnected", reason && `${reason.message || reason.code}`),
      },
    );
  }

  pump() {
    if (!this.connection.connected) return;
    for (const entry of this.node.queue.entries.slice(0, WINDOW)) {
      if (entry.sent) continue;
      entry.sent = true;
      this.connection.publish(entry.topic, entry.body, () => {
        this.node.settle(entry);
        this.pump();
      });
    }
  }

  close() {
    return this.connection.close();
  }
}

/** Posts fixes in batches, each with a key that its repetitions keep. */
class HttpSender {
  #backoff = new Backoff();
  #busy = false;
  #closed = false;

  constructor(node) {
    this.node = node;
    const basic = Buffer.from(`${node.device ?? ""}:${node.secret ?? ""}`).toString("base64");
    this.headers = { authorization: `Basic ${basic}` };
  }

  start() {
    this.pump();
  }

  pump() {
    if (!this.#busy && !this.#closed && this.node.queue.size > 0) void this.#send(this.#nextBatch(), randomUUID());
  }

  /** The first messages that fit into one request: JSON objects, or one of another form. */
  #nextBatch() {
    const { entries } = this.node.queue;
    const end = entries.findIndex(({ body }) => !body.startsWith("{"));
    return entries.slice(0, end < 0 ? BATCH : Math.max(1, Math.min(end, BATCH)));
  }

  async #send(batch, key) {
    const { node } = this;
    const isJson = batch[0].body.startsWith("{");
    const kind = { "car-iotp": "?kind=vehicle", "mobile-iotp": "?kind=person" }[node.format] ?? "";
    this.#busy = true;
    try {
      const answer = await fetchJson(node.server, `/v1/fixes${kind}`, {
        method: "POST",
        headers: {
          ...this.headers,
          "content-type": isJson ? "application/x-ndjson" : "text/plain",
          "idempotency-key": key,
        },
        body: batch.map(({ body }) => body).join("\n"),
      });
      this.#backoff.reset();
      node.setState("green", "headcount.status.connected");
      this.#settle(batch, answer);
    } catch (error) {
      if (this.#closed) return;
      if (error instanceof ApiError && FINAL.has(error.status)) this.#settle(batch, error.body, error.message);
      else {
        node.setState("red", "headcount.status.disconnected", error.message);
        const delay_ms = Math.max(this.#backoff.next(), (error.retryAfter_s ?? 0) * 1000);
        this.timer = setTimeout(() => void this.#send(batch, key), delay_ms);
        return;
      }
    }
    this.#busy = false;
    this.pump();
  }

  #settle(batch, answer, problem) {
    for (const [index, entry] of batch.entries()) {
      const receipt = answer?.fixes?.[index];
      const stored = receipt && ["stored", "ignored", "inactive"].includes(receipt.verdict);
      this.node.settle(entry, stored ? undefined : (receipt && `${receipt.verdict}: ${receipt.problem}`) || problem);
    }
  }

  async close() {
    this.#closed = true;
    clearTimeout(this.timer);
  }
}
