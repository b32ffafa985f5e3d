/** Parser of server-sent events. */

/** Return a function that takes pieces of a stream and calls `receive` with the name and data of each event. */
function eventParser(receive) {
  let rest = "";
  return (piece) => {
    rest += piece;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => line.split(/: ?(.*)/s).slice(0, 2)));
      if (fields.has("data")) receive(fields.get("event") ?? "message", fields.get("data"));
    }
  };
}

module.exports = { eventParser };
