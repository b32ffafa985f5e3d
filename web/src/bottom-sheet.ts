/** On a narrow screen the panel is a sheet over the map: pulled up and down, or with its button. */

import { setAttribute, setText } from "./element";

export type Rest = "low" | "half" | "high";
const RESTS: readonly Rest[] = ["low", "half", "high"];
const LOW_PX = 140; // as in style.css, without what a phone keeps for itself
const NARROW = "(max-width: 759px)";

/** The resting height nearest to where the sheet was let go; a clear pull goes to the next one. */
export function restAfter(height: number, heights: Record<Rest, number>): Rest {
  return RESTS.reduce((best, rest) =>
    Math.abs(heights[rest] - height) < Math.abs(heights[best] - height) ? rest : best,
  );
}

export class Sheet {
  readonly #narrow = matchMedia(NARROW);
  #rest: Rest = "half";
  #pulled = false;

  constructor(
    private readonly app: HTMLElement,
    private readonly panel: HTMLElement,
    private readonly handle: HTMLElement,
    private readonly handleText: HTMLElement,
    private readonly covers: (bottom: number) => void,
  ) {
    handle.addEventListener("click", () => {
      if (!this.#pulled) this.to(this.#rest === "high" ? "low" : this.#rest === "half" ? "high" : "half");
    });
    handle.addEventListener("pointerdown", (event) => this.#pull(event));
    this.#narrow.addEventListener("change", () => this.to("half"));
    this.to("half");
  }

  get narrow(): boolean {
    return this.#narrow.matches;
  }

  /** Lets what is in the sheet be seen. */
  raise(): void {
    if (this.narrow && this.#rest === "low") this.to("half");
  }

  to(rest: Rest): void {
    this.#rest = rest;
    this.app.dataset.sheet = rest;
    this.panel.style.removeProperty("height");
    setAttribute(this.handle, "aria-expanded", String(rest !== "low"));
    setText(this.handleText, rest === "high" ? "Make the list smaller" : "Make the list larger");
    // A sheet that covers nearly everything leaves no map to fit anything into.
    if (rest !== "high") this.covers(this.narrow ? this.#heights()[rest] : 0);
  }

  #heights(): Record<Rest, number> {
    const whole = this.app.clientHeight;
    return { low: LOW_PX, half: Math.round(whole * 0.5), high: whole - 64 };
  }

  #pull(down: PointerEvent): void {
    if (!this.narrow) return;
    const begin = this.panel.clientHeight;
    this.#pulled = false;
    this.handle.setPointerCapture(down.pointerId);
    const move = (event: PointerEvent): void => {
      const by = down.clientY - event.clientY;
      if (Math.abs(by) < 6 && !this.#pulled) return;
      this.#pulled = true;
      const { low, high } = this.#heights();
      this.panel.style.height = `${Math.min(high, Math.max(low, begin + by))}px`;
    };
    const end = (): void => {
      this.handle.removeEventListener("pointermove", move);
      this.handle.removeEventListener("pointerup", end);
      this.handle.removeEventListener("pointercancel", end);
      if (this.#pulled) this.to(restAfter(this.panel.clientHeight, this.#heights()));
      // The click that follows a pull isn't one.
      setTimeout(() => (this.#pulled = false));
    };
    this.handle.addEventListener("pointermove", move);
    this.handle.addEventListener("pointerup", end);
    this.handle.addEventListener("pointercancel", end);
  }
}
