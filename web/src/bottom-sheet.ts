/** The panel on a narrow screen: a sheet over the map, dragged up and down or moved by its button. */

import { setAttribute, setText } from "./element";

export type SnapPoint = "low" | "half" | "high";
const SNAP_POINTS: readonly SnapPoint[] = ["low", "half", "high"];
const LOW_PX = 140; // as in style.css, without the phone's safe area
const NARROW = "(max-width: 759px)";
const DRAG_THRESHOLD_PX = 6;

/** The snap point nearest to the height at which the sheet was released. */
export function nearestSnapPoint(height: number, heights: Record<SnapPoint, number>): SnapPoint {
  return SNAP_POINTS.reduce((best, point) =>
    Math.abs(heights[point] - height) < Math.abs(heights[best] - height) ? point : best,
  );
}

export class BottomSheet {
  readonly #narrow = matchMedia(NARROW);
  #snapPoint: SnapPoint = "half";
  #dragged = false;

  constructor(
    private readonly app: HTMLElement,
    private readonly panel: HTMLElement,
    private readonly handle: HTMLElement,
    private readonly handleText: HTMLElement,
    private readonly covers: (bottom: number) => void,
  ) {
    handle.addEventListener("click", () => {
      if (!this.#dragged)
        this.snapTo(this.#snapPoint === "high" ? "low" : this.#snapPoint === "half" ? "high" : "half");
    });
    handle.addEventListener("pointerdown", (event) => this.#drag(event));
    this.#narrow.addEventListener("change", () => this.snapTo("half"));
    this.snapTo("half");
  }

  get narrow(): boolean {
    return this.#narrow.matches;
  }

  /** Raises the sheet from its lowest position, so that its content is visible. */
  raise(): void {
    if (this.narrow && this.#snapPoint === "low") this.snapTo("half");
  }

  snapTo(point: SnapPoint): void {
    this.#snapPoint = point;
    this.app.dataset.sheet = point;
    this.panel.style.removeProperty("height");
    setAttribute(this.handle, "aria-expanded", String(point !== "low"));
    setText(this.handleText, point === "high" ? "Make the list smaller" : "Make the list larger");
    // A sheet that covers nearly everything leaves no map to fit anything into.
    if (point !== "high") this.covers(this.narrow ? this.#heights()[point] : 0);
  }

  #heights(): Record<SnapPoint, number> {
    const total = this.app.clientHeight;
    return { low: LOW_PX, half: Math.round(total * 0.5), high: total - 64 };
  }

  #drag(down: PointerEvent): void {
    if (!this.narrow) return;
    const start = this.panel.clientHeight;
    this.#dragged = false;
    this.handle.setPointerCapture(down.pointerId);
    const move = (event: PointerEvent): void => {
      const by = down.clientY - event.clientY;
      if (Math.abs(by) < DRAG_THRESHOLD_PX && !this.#dragged) return;
      this.#dragged = true;
      const { low, high } = this.#heights();
      this.panel.style.height = `${Math.min(high, Math.max(low, start + by))}px`;
    };
    const end = (): void => {
      this.handle.removeEventListener("pointermove", move);
      this.handle.removeEventListener("pointerup", end);
      this.handle.removeEventListener("pointercancel", end);
      if (this.#dragged) this.snapTo(nearestSnapPoint(this.panel.clientHeight, this.#heights()));
      // The browser sends a click after a drag: ignore that one.
      setTimeout(() => {
        this.#dragged = false;
      });
    };
    this.handle.addEventListener("pointermove", move);
    this.handle.addEventListener("pointerup", end);
    this.handle.addEventListener("pointercancel", end);
  }
}
