import type { WaitingFix } from "./fix-buffer.js";

/** Keeps waiting fixes, so that they survive a restart: `FileStorage` and `IndexedDbStorage` implement it. */
export interface FixStorage {
  /** Reads what a previous run left, in the order of their numbers. */
  load(): Promise<WaitingFix[]>;
  put(fix: WaitingFix): Promise<void>;
  remove(numbers: readonly number[]): Promise<void>;
  close(): Promise<void>;
}
