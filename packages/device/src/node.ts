import { type FileHandle, open, rename, writeFile } from "node:fs/promises";
import type { WaitingFix } from "./fix-buffer.js";
import type { FixStorage } from "./storage.js";

/** Removed fixes in the file before it is rewritten. */
const MAX_REMOVED = 1_000;

/**
 * Keeps waiting fixes in a file: a line of JSON for each, and a line with the numbers of those that were removed.
 *
 * A line that a crash has cut is ignored. Only one process may use a file at a time.
 */
export class FileStorage implements FixStorage {
  readonly #path: string;
  readonly #fixes = new Map<number, WaitingFix>();
  #file: FileHandle | undefined;
  #removed = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
  }

  async load(): Promise<WaitingFix[]> {
    for (const line of (await this.#text()).split("\n")) {
      try {
        const found = JSON.parse(line) as WaitingFix | number[];
        if (!Array.isArray(found)) this.#fixes.set(found.number, found);
        else for (const number of found) this.#fixes.delete(number);
      } catch {}
    }
    await this.#rewrite();
    return [...this.#fixes.values()];
  }

  put(fix: WaitingFix): Promise<void> {
    return this.#append(fix, () => this.#fixes.set(fix.number, fix));
  }

  remove(numbers: readonly number[]): Promise<void> {
    return this.#append(numbers, async () => {
      for (const number of numbers) this.#fixes.delete(number);
      this.#removed += numbers.length;
      if (this.#removed > MAX_REMOVED) await this.#rewrite();
    });
  }

  async close(): Promise<void> {
    await this.#last.catch(() => undefined);
    await this.#file?.close();
    this.#file = undefined;
  }

  async #text(): Promise<string> {
    const file = await open(this.#path, "a+", 0o600);
    try {
      return await file.readFile("utf8");
    } finally {
      await file.close();
    }
  }

  /** One change after the other, in the order of the calls. */
  #append(line: WaitingFix | readonly number[], then: () => unknown): Promise<void> {
    const change = async (): Promise<void> => {
      if (this.#file === undefined) throw new Error(`the file ${this.#path} is not open`);
      await this.#file.appendFile(`${JSON.stringify(line)}\n`);
      await this.#file.datasync();
      await then();
    };
    this.#last = this.#last.catch(() => undefined).then(change);
    return this.#last;
  }

  async #rewrite(): Promise<void> {
    await this.#file?.close();
    const lines = [...this.#fixes.values()].map((fix) => `${JSON.stringify(fix)}\n`);
    await writeFile(`${this.#path}.new`, lines.join(""), { mode: 0o600, flush: true });
    await rename(`${this.#path}.new`, this.#path);
    this.#file = await open(this.#path, "a", 0o600);
    this.#removed = 0;
  }
}
