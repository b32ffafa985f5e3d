/** headcount-count: live counts of a zone, or of all zones. */

const { ApiError, bearer, open, read } = require("./api");
const { Backoff } = require("./backoff");
const { eventParser } = require("./events");

/** The stream has an event every 5 s. */
const IDLE_MS = 20_000;

module.exports = (RED) => {
  class CountNode {
    #backoff = new Backoff();
    #last = new Map();

    constructor(config) {
      RED.nodes.createNode(this, config);
      this.server = RED.nodes.getNode(config.server);
      this.zone = config.zone;
      this.every_s = Math.max(1, Number(config.every) || 1);
      this.on("close", (done) => {
        this.closed = true;
        clearTimeout(this.timer);
        this.response?.destroy();
        done();
      });
      if (this.server?.url) void this.follow();
      else this.status({ fill: "red", shape: "ring", text: RED._("headcount.status.unconfigured") });
    }

    /** Read the stream to its end, and connect again. */
    async follow() {
      const query = new URLSearchParams({ every: this.every_s, ...(this.zone ? { zones: this.zone } : {}) });
      try {
        const options = { headers: bearer(this.server), timeout_ms: IDLE_MS };
        const response = await open(this.server, `${this.server.path("stream")}?${query}`, options);
        this.response = response;
        if (this.closed) return response.destroy();
        if (response.statusCode !== 200) {
          throw new ApiError(response.statusCode, response.headers, await read(response));
        }
        this.#backoff.reset();
        this.problem = undefined;
        this.status({ fill: "green", shape: "dot", text: RED._("headcount.status.connected") });
        const parse = eventParser((name, data) => name === "counts" && this.take(JSON.parse(data)));
        response.setEncoding("utf8");
        for await (const piece of response) parse(piece);
      } catch (error) {
        if (!this.closed && this.problem !== error.message) this.warn(error.message);
        this.problem = error.message;
      }
      if (this.closed) return;
      this.status({ fill: "red", shape: "ring", text: RED._("headcount.status.disconnected") });
      this.timer = setTimeout(() => void this.follow(), this.#backoff.next());
    }

    /** Send a message for each zone whose counts have changed. */
    take({ site, at, zones }) {
      for (const { zone, person, vehicle } of zones) {
        const counts = JSON.stringify([person, vehicle]);
        if (this.#last.get(zone) === counts) continue;
        this.#last.set(zone, counts);
        this.send({ topic: zone, payload: { site, zone, at, person, vehicle } });
      }
      if (!this.zone || zones.length === 0) return;
      const { person, vehicle } = zones[0];
      const text = RED._("headcount.status.counts", { people: person.count, vehicles: vehicle.count });
      this.status({ fill: "green", shape: "dot", text });
    }
  }

  RED.nodes.registerType("headcount-count", CountNode);
};
