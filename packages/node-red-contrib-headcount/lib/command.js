/** headcount-command: send a command to a device. */

const { bearer, fetchJson } = require("./api");

/** The key of the value that each command has. */
const VALUES = { interval: "interval_s", pause: "pause_s", message: "text" };

module.exports = (RED) => {
  class CommandNode {
    constructor(config) {
      RED.nodes.createNode(this, config);
      this.server = RED.nodes.getNode(config.server);
      this.on("input", async (msg, send, done) => {
        if (!this.server?.url) return done(new Error(RED._("headcount.error.unconfigured")));
        try {
          const device = msg.device ?? config.device;
          if (!device) throw new Error(RED._("headcount.error.device"));
          msg.payload = await fetchJson(this.server, this.server.path("devices", device, "commands"), {
            method: "POST",
            headers: { ...bearer(this.server), "content-type": "application/json" },
            body: JSON.stringify(command(config, msg)),
          });
          this.status({ fill: "green", shape: "dot", text: `${msg.payload.command}: ${msg.payload.state}` });
          send(msg);
          done();
        } catch (error) {
          this.status({ fill: "red", shape: "ring", text: error.message });
          done(error);
        }
      });
    }
  }

  RED.nodes.registerType("headcount-command", CommandNode);
};

/** The body of the request: `msg.payload` if it is a command, else the node's settings. */
function command(config, { payload }) {
  if (payload?.command) return payload;
  const key = VALUES[config.command];
  if (!key) return { command: config.command };
  return { command: config.command, [key]: key === "text" ? config.value : Number(config.value) };
}
