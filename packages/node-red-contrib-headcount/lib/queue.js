/** A bounded queue of messages, oldest first; with a file, it survives the end of the process. */

const fs = require("node:fs");
const path = require("node:path");

/** Sent messages that the file may still hold beside waiting ones. */
const MAX_SENT_LINES = 1000;

class Queue {
  /**
   * @param {number} max maximum number of messages: the oldest are dropped for newer ones
   * @param {string} [file] where the messages are, one JSON array per line; those in it are read
   */
  constructor(max, file) {
    this.max = max;
    this.file = file;
    /** Messages: `{ topic, body, done, sent, acknowledged }`. */
    this.entries = [];
    /** Messages that were dropped because the queue was full. */
    this.dropped = 0;
    /** Lines of the file before the first waiting message. */
    this.sentLines = 0;
    if (file) this.#open();
  }

  get size() {
    return this.entries.length;
  }

  /** Append a message. @returns the message that was dropped for it, if any @throws if the file cannot be written */
  push(topic, body, done) {
    if (this.fd !== undefined) fs.writeSync(this.fd, line(topic, body));
    this.entries.push({ topic, body, done });
    if (this.entries.length <= this.max) return undefined;
    this.dropped++;
    const [oldest] = this.entries.splice(0, 1);
    this.#removed(1);
    return oldest;
  }

  /** Mark a message as stored by headcount, and remove it as soon as all before it are stored, too. */
  acknowledge(entry) {
    entry.acknowledged = true;
    let count = 0;
    while (this.entries[count]?.acknowledged) count++;
    if (count === 0) return;
    this.entries.splice(0, count);
    this.#removed(count);
  }

  /** Take another's messages, in front of ours: those of the same node before it was deployed again. */
  adopt(entries) {
    this.entries.unshift(...entries);
    this.entries.splice(0, Math.max(0, this.entries.length - this.max));
  }

  /** Close the file, which then holds only the waiting messages. */
  close() {
    if (this.fd === undefined) return;
    this.#rewrite();
    fs.closeSync(this.fd);
    this.fd = undefined;
  }

  /** Close and delete the file. */
  remove() {
    if (this.fd !== undefined) fs.closeSync(this.fd);
    this.fd = undefined;
    if (this.file) fs.rmSync(this.file, { force: true });
  }

  #open() {
    fs.mkdirSync(path.dirname(this.file), { recursive: true, mode: 0o700 });
    const text = fs.existsSync(this.file) ? fs.readFileSync(this.file, "utf8") : "";
    for (const each of text.split("\n")) {
      const entry = parsed(each);
      if (entry) this.entries.push(entry);
    }
    this.entries.splice(0, Math.max(0, this.entries.length - this.max));
    this.#rewrite();
  }

  #removed(count) {
    if (this.fd === undefined) return;
    this.sentLines += count;
    if (this.entries.length === 0) {
      fs.ftruncateSync(this.fd, 0);
      this.sentLines = 0;
    } else if (this.sentLines > MAX_SENT_LINES) {
      try {
        this.#rewrite();
      } catch {
        // the disk is full: the old file is still valid, and it is written at one of the next messages
      }
    }
  }

  #rewrite() {
    const partial = `${this.file}.partial`;
    fs.writeFileSync(partial, this.entries.map(({ topic, body }) => line(topic, body)).join(""), { mode: 0o600 });
    fs.renameSync(partial, this.file);
    if (this.fd !== undefined) fs.closeSync(this.fd);
    this.fd = fs.openSync(this.file, "a", 0o600);
    this.sentLines = 0;
  }
}

function line(topic, body) {
  return `${JSON.stringify([topic, body])}\n`;
}

/** The message of a line; undefined if it is incomplete: the process was killed while it was written. */
function parsed(text) {
  try {
    const [topic, body] = JSON.parse(text);
    return typeof topic === "string" && typeof body === "string" ? { topic, body } : undefined;
  } catch {
    return undefined;
  }
}

module.exports = { Queue };
