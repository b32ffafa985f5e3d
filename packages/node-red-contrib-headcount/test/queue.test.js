const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const { eventParser } = require("../lib/events");
const { Queue } = require("../lib/queue");

function temporary(t) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "queue-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  return path.join(folder, "sub", "a.queue");
}

const bodies = (queue) => queue.entries.map(({ body }) => body);

test("a full queue drops the oldest message and returns it", () => {
  const queue = new Queue(2);
  assert.equal(queue.push("t", "1"), undefined);
  queue.push("t", "2");
  assert.equal(queue.push("t", "3").body, "1");
  assert.deepEqual(bodies(queue), ["2", "3"]);
  assert.equal(queue.dropped, 1);
});

test("a message leaves only after all before it", () => {
  const queue = new Queue(3);
  for (const body of ["1", "2", "3"]) queue.push("t", body);
  const [first, second] = queue.entries;
  queue.acknowledge(second);
  assert.equal(queue.size, 3);
  queue.acknowledge(first);
  assert.deepEqual(bodies(queue), ["3"]);
});

test("a message that was dropped while it was sent may be acknowledged", () => {
  const queue = new Queue(1);
  queue.push("t", "1");
  const [first] = queue.entries;
  queue.push("t", "2");
  queue.acknowledge(first);
  assert.deepEqual(bodies(queue), ["2"]);
});

test("the file has what waits after the end of the process, for its owner only", (t) => {
  const file = temporary(t);
  const killed = new Queue(10, file);
  for (const body of ["1", "2", 'ö"\n']) killed.push("t", body);
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  assert.deepEqual(bodies(new Queue(10, file)), ["1", "2", 'ö"\n']);
});

test("an incomplete last line is ignored, and the next message is whole", (t) => {
  const file = temporary(t);
  new Queue(10, file).push("t", "1");
  fs.appendFileSync(file, '["t","2');
  const next = new Queue(10, file);
  next.push("t", "3");
  assert.deepEqual(bodies(new Queue(10, file)), ["1", "3"]);
});

test("a file with more messages than the limit gives the newest", (t) => {
  const file = temporary(t);
  const queue = new Queue(10, file);
  for (const body of ["1", "2", "3"]) queue.push("t", body);
  assert.deepEqual(bodies(new Queue(2, file)), ["2", "3"]);
});

test("the file stays small while messages come and go, and is empty when none waits", (t) => {
  const file = temporary(t);
  const queue = new Queue(10, file);
  queue.push("t", "first");
  for (let n = 0; n < 5000; n++) {
    queue.push("t", "x".repeat(10));
    queue.acknowledge(queue.entries[0]);
    assert.ok(fs.statSync(file).size < 40_000);
  }
  queue.acknowledge(queue.entries[0]);
  assert.equal(fs.statSync(file).size, 0);
  queue.remove();
  assert.ok(!fs.existsSync(file));
});

test("events are parsed across the pieces of a stream", () => {
  const events = [];
  const parse = eventParser((name, data) => events.push([name, data]));
  for (const piece of ["retry: 2000\n\nevent: cou", "nts\nid: 1\ndata: {", '"a": 1}\n', "\nevent: ping\ndata: 2\n\n"])
    parse(piece);
  assert.deepEqual(events, [
    ["counts", '{"a": 1}'],
    ["ping", "2"],
  ]);
});
