import type { WaitingFix } from "./fix-buffer.js";
import type { FixStorage, SavedText, StoredDevice } from "./storage.js";

const FIXES = "fixes";
const SAVED = "saved";

/** Keeps waiting fixes in IndexedDB, so that they survive a reload of the page. */
export class IndexedDbStorage implements FixStorage {
  readonly #name: string;
  #database: IDBDatabase | undefined;

  /** @param name of the database; each device of an origin needs its own */
  constructor(name: string) {
    this.#name = name;
  }

  async load(): Promise<StoredDevice> {
    const request = indexedDB.open(this.#name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(FIXES, { keyPath: "number" });
      request.result.createObjectStore(SAVED);
    };
    this.#database = await resultOf(request);
    const transaction = this.#database.transaction([FIXES, SAVED]);
    const saved = transaction.objectStore(SAVED);
    const [fixes, names, texts] = await Promise.all([
      resultOf<WaitingFix[]>(transaction.objectStore(FIXES).getAll()),
      resultOf(saved.getAllKeys()),
      resultOf<string[]>(saved.getAll()),
    ]);
    return { fixes, saved: Object.fromEntries(names.map((name, index) => [name, texts[index]])) };
  }

  put(fix: WaitingFix, state: string): Promise<void> {
    return this.#change((fixes, saved) => {
      fixes.put(fix);
      saved.put(state, "state");
    });
  }

  save(name: SavedText, text: string): Promise<void> {
    return this.#change((_, saved) => saved.put(text, name));
  }

  remove(numbers: readonly number[]): Promise<void> {
    return this.#change((fixes) => {
      for (const number of numbers) fixes.delete(number);
    });
  }

  async close(): Promise<void> {
    this.#database?.close();
    this.#database = undefined;
  }

  async #change(apply: (fixes: IDBObjectStore, saved: IDBObjectStore) => void): Promise<void> {
    if (this.#database === undefined) throw new Error(`the database ${this.#name} is not open`);
    const transaction = this.#database.transaction([FIXES, SAVED], "readwrite");
    apply(transaction.objectStore(FIXES), transaction.objectStore(SAVED));
    await new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
  }
}

function resultOf<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
