/** headcount-server: the addresses of headcount, the site, and the token of a program. */

module.exports = (RED) => {
  class ServerNode {
    constructor(config) {
      RED.nodes.createNode(this, config);
      this.url = this.address(config.url, ["http:", "https:"]);
      this.broker = this.address(config.broker, ["mqtt:", "mqtts:", "ws:", "wss:"]);
      this.site = config.site;
      this.tls = RED.nodes.getNode(config.tls);
    }

    /** An address if it is valid; otherwise undefined, with an error in the log. */
    address(text, protocols) {
      let url;
      try {
        url = new URL(text);
      } catch {
        url = undefined;
      }
      if (url && protocols.includes(url.protocol) && !url.username && !url.password) return text;
      this.error(RED._("headcount.error.address", { protocols: protocols.join(", ") }));
      return undefined;
    }

    /** The options of a TLS connection. */
    tlsOptions() {
      return this.tls ? this.tls.addTLSOptions({}) : {};
    }

    /** The path of something of the site. */
    path(...names) {
      return ["/v1/sites", ...[this.site, ...names].map(encodeURIComponent)].join("/");
    }

    /** The MQTT options of a program: its token, or nothing for headcount with `--open`. */
    programOptions(id) {
      const token = this.credentials?.token;
      if (!token) return { ...this.tlsOptions(), clientId: `nodered-${id}` };
      const clientId = `${token.split("_")[1]}-${id}`;
      return { ...this.tlsOptions(), clientId, username: "token", password: token };
    }
  }

  RED.nodes.registerType("headcount-server", ServerNode, {
    credentials: { token: { type: "password" } },
  });
};
