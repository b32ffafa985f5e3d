import type { WaitingFix } from "./fix-buffer.js";
import type { FixStorage } from "./storage.js";

const STORE = "fixes";

/** Keeps waiting fixes in IndexedDB, so that they survive a reload of the page. */
export class IndexedDbStorage implements FixStorage {
  readonly #name: string;
  #database: IDBDatabase | undefined;

  /** @param name of the database; each device of an origin needs its own */
  constructor(name: string) {
    this.#name = name;
  }

  async load(): Promise<WaitingFix[]> {
    const request = indexedDB.open(this.#name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "number" });
    this.#database = await resultOf(request);
    return resultOf<WaitingFix[]>(this.#database.transaction(STORE).objectStore(STORE).getAll());
  }

  put(fix: WaitingFix): Promise<void> {
    return this.#change((store) => store.put(fix));
  }

  remove(numbers: readonly number[]): Promise<void> {
    return this.#change((store) => {
      for (const number of numbers) store.delete(number);
    });
  }

  async close(): Promise<void> {
    this.#database?.close();
    this.#database = undefined;
  }

  async #change(apply: (store: IDBObjectStore) => void): Promise<void> {
    if (this.#database === undefined) throw new Error(`the database ${this.#name} is not open`);
    const transaction = this.#database.transaction(STORE, "readwrite");
    apply(transaction.objectStore(STORE));
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
