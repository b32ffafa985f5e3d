import type { WaitingFix } from "./fix-buffer.js";

/** What survives a restart, besides the fixes: the memory of the reporter as JSON, and the site's GeoJSON. */
export type SavedText = "state" | "site";

export interface StoredDevice {
  /** In the order of their numbers. */
  fixes: WaitingFix[];
  saved: Partial<Record<SavedText, string>>;
}

/** Keeps waiting fixes over a restart: `FileStorage` and `IndexedDbStorage` implement it. */
export interface FixStorage {
  /** Reads what a previous run left. */
  load(): Promise<StoredDevice>;
  /** Adds a fix, and the state after it. */
  put(fix: WaitingFix, state: string): Promise<void>;
  save(name: SavedText, text: string): Promise<void>;
  remove(numbers: readonly number[]): Promise<void>;
  close(): Promise<void>;
}
