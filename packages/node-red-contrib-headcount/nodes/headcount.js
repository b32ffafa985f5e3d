/** The nodes of headcount. */

module.exports = (RED) => {
  require("../lib/server")(RED);
  require("../lib/fix")(RED);
  require("../lib/count")(RED);
  require("../lib/event")(RED);
  require("../lib/history")(RED);
  require("../lib/command")(RED);
};
