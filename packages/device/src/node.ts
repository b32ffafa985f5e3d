import { type FileHandle, open, rename, writeFile } from "node:fs/promises";
import type { WaitingFix } from "./fix-buffer.js";
import type { FixStorage, SavedText, StoredDevice } from "./storage.js";

/** Lines that were added before the file is rewritten. */
const MAX_LINES = 5_000;

/** A line of the file; each part is optional. */
interface Line {
  fix?: WaitingFix;
  removed?: readonly number[];
  state?: string;
  site?: string;
}

/**
 * Keeps waiting fixes in a file, to which each change is added as a line of JSON.
 *
 * A line that a crash has cut is ignored. Only one process may use a file at a time.
 */
export class FileStorage implements FixStorage {
  readonly #path: string;
  readonly #fixes = new Map<number, WaitingFix>();
  readonly #saved: StoredDevice["saved"] = {};
  #file: FileHandle | undefined;
  #lines = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
  }

  async load(): Promise<StoredDevice> {
    for (const text of (await this.#text()).split("\n")) {
      try {
        this.#take(JSON.parse(text));
      } catch {}
    }
    await this.#rewrite();
    return { fixes: [...this.#fixes.values()], saved: { ...this.#saved } };
  }

  put(fix: WaitingFix, state: string): Promise<void> {
    return this.#add({ fix, state });
  }

  save(name: SavedText, text: string): Promise<void> {
    return this.#add({ [name]: text });
  }

  remove(removed: readonly number[]): Promise<void> {
    return this.#add({ removed });
  }

  async close(): Promise<void> {
    await this.#last.catch(() => undefined);
    await this.#file?.close();
    this.#file = undefined;
  }

  async #text(): Promise<string> {
    // positions are personal data: only their owner may read the file
    const file = await open(this.#path, "a+", 0o600);
    try {
      return await file.readFile("utf8");
    } finally {
      await file.close();
    }
  }

  #take({ fix, removed, ...saved }: Line): void {
    if (fix) this.#fixes.set(fix.number, fix);
    for (const number of removed ?? []) this.#fixes.delete(number);
    Object.assign(this.#saved, saved);
  }

  /** One change after the other, in the order of the calls. */
  #add(line: Line): Promise<void> {
    const change = async (): Promise<void> => {
      if (this.#file === undefined) throw new Error(`the file ${this.#path} is not open`);
      await this.#file.appendFile(`${JSON.stringify(line)}\n`);
      await this.#file.datasync();
      this.#take(line);
      this.#lines++;
      if (this.#lines > MAX_LINES) await this.#rewrite();
    };
    this.#last = this.#last.catch(() => undefined).then(change);
    return this.#last;
  }

  async #rewrite(): Promise<void> {
    await this.#file?.close();
    const lines: Line[] = [this.#saved, ...[...this.#fixes.values()].map((fix) => ({ fix }))];
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    await writeFile(`${this.#path}.new`, text, { mode: 0o600, flush: true });
    await rename(`${this.#path}.new`, this.#path);
    this.#file = await open(this.#path, "a", 0o600);
    this.#lines = 0;
  }
}
