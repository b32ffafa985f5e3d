/** headcount-event: devices that enter and leave zones. */

const { Connection } = require("./connection");

module.exports = (RED) => {
  class EventNode {
    constructor(config) {
      RED.nodes.createNode(this, config);
      this.server = RED.nodes.getNode(config.server);
      const show = (fill, text) => {
        this.status({ fill, shape: fill === "green" ? "dot" : "ring", text: RED._(`headcount.status.${text}`) });
      };
      this.on("close", (done) => {
        if (this.connection) this.connection.close().then(() => done(), done);
        else done();
      });
      if (!this.server?.broker) {
        show("red", "unconfigured");
        return;
      }
      show("yellow", "connecting");
      const topic = `headcount/${this.server.site}/events/${config.zone || "+"}`;
      this.connection = new Connection(this.server.broker, this.server.programOptions(this.id), {
        connected: () => {
          this.problem = undefined;
          show("green", "connected");
          this.connection.subscribe(topic, () => {
            show("red", "refused");
            this.warn(RED._("headcount.error.events"));
          });
        },
        lost: (reason) => {
          show("red", "disconnected");
          if (reason && this.problem !== reason.message) this.warn(reason.message);
          this.problem = reason?.message;
        },
        message: (received, payload) => {
          const event = JSON.parse(payload.toString());
          if (config.change && event.type !== config.change) return;
          this.send({ topic: received, payload: event });
        },
      });
    }
  }

  RED.nodes.registerType("headcount-event", EventNode);
};
