/** headcount-history: counts over time, or positions. */

const { bearer, fetchJson } = require("./api");

module.exports = (RED) => {
  class HistoryNode {
    constructor(config) {
      RED.nodes.createNode(this, config);
      this.server = RED.nodes.getNode(config.server);
      this.on("input", async (msg, send, done) => {
        if (!this.server?.url) return done(new Error(RED._("headcount.error.unconfigured")));
        this.status({ fill: "blue", shape: "ring", text: RED._("headcount.status.querying") });
        try {
          const headers = bearer(this.server);
          const reason = msg.reason ?? config.reason;
          if (config.query === "positions" && reason) headers["headcount-reason"] = reason;
          msg.payload = await fetchJson(this.server, address(this.server, config, msg), { headers });
          this.status({});
          send(msg);
          done();
        } catch (error) {
          this.status({ fill: "red", shape: "ring", text: error.message });
          done(error);
        }
      });
    }
  }

  RED.nodes.registerType("headcount-history", HistoryNode);
};

/** The address of a query: the node's settings, and those that the message overrides. */
function address(server, config, msg) {
  const zone = msg.zone ?? config.zone;
  if (config.query === "positions") {
    return `${server.path("fixes")}?${query({ at: time(msg.at ?? Date.now()), within: zone, kind: msg.kind })}`;
  }
  const to = new Date(msg.to ?? Date.now());
  const from = msg.from ?? to - (Number(config.span) || 3600) * 1000;
  const step = msg.step ?? (Number(config.step) || 60);
  return `${server.path("zones", zone || "site", "history")}?${query({ from: time(from), to: time(to), step })}`;
}

function query(values) {
  return new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== ""));
}

/** A time as text: of a Date, of milliseconds, or of a text that is one already. */
function time(value) {
  return new Date(value).toISOString();
}
