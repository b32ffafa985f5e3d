/** The legend of the colour scale, and the choice of what it shows. */

import { element, setAttribute } from "./element";
import { formatNumber } from "./format";
import { type Mode, NEUTRAL, OVER } from "./scale";

const TITLES: Record<Mode, string> = { full: "How full", person: "People", vehicle: "Vehicles" };

/** The labels under the scale's start, middle and end. */
export function marks(mode: Mode, end: number): [string, string, string] {
  if (mode === "full") return ["0%", "50%", "100%"];
  return ["0", formatNumber(end / 2), formatNumber(end)];
}

export class Legend {
  readonly #scale = element("div", { class: "scale", "aria-hidden": "true" });
  readonly #marks = element("p", { class: "marks" });
  readonly #extra = element("p", { class: "extra" });
  #rendered = "";

  constructor(
    root: HTMLElement,
    modes: readonly Mode[],
    mode: Mode,
    choose: (mode: Mode) => void,
    attribution: string | undefined,
  ) {
    const buttons = modes.map((choice) => {
      const button = element(
        "button",
        { type: "button", class: "chip", "aria-pressed": String(choice === mode) },
        TITLES[choice],
      );
      button.addEventListener("click", () => {
        for (const other of buttons) setAttribute(other, "aria-pressed", String(other === button));
        choose(choice);
      });
      return button;
    });
    for (let step = 1; step < OVER; step += 1) this.#scale.append(element("span", { "data-step": String(step) }));
    root.replaceChildren(
      element("div", { class: "filters", role: "group", "aria-label": "Colours show" }, ...buttons),
      element("div", { class: "ruler" }, this.#scale, this.#marks),
      this.#extra,
    );
    if (attribution) root.append(element("p", { class: "attribution" }, attribution));
    root.hidden = false;
  }

  update(mode: Mode, end: number): void {
    const key = `${mode} ${end}`;
    if (key === this.#rendered) return;
    this.#rendered = key;
    this.#marks.replaceChildren(...marks(mode, end).map((text) => element("span", {}, text)));
    const swatch = (step: number, text: string): HTMLElement =>
      element("span", {}, element("i", { class: "swatch", "data-step": String(step), "aria-hidden": "true" }), text);
    this.#extra.replaceChildren(
      ...(mode === "full" ? [swatch(OVER, "over capacity"), swatch(NEUTRAL, "no capacity or count known")] : []),
    );
  }
}
