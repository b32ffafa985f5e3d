/** The selected zone: its counts with an explanation, and its history. */

import { isNumber, KINDS, type Kind, type Site, type Zone, type ZoneCounts } from "./api";
import { element, icon, setText } from "./element";
import { countOf, explain, formatCount, kindTitle, percent, range, typeName } from "./format";
import type { History } from "./history";
import { mainKind, occupancy } from "./scale";

interface KindSection {
  root: HTMLElement;
  figure: HTMLElement;
  range: HTMLElement;
  gauge: HTMLElement;
  words: HTMLElement;
}

function makeKindSection(kind: Kind): KindSection {
  const part = {
    figure: element("b", {}, "–"),
    range: element("span", { class: "range" }),
    gauge: element("div", { class: "gauge", "aria-hidden": "true" }, element("i"), element("i"), element("i")),
    words: element("p", { class: "words" }),
  };
  const title = element("h3", {}, icon(kind), kindTitle(kind));
  const root = element(
    "section",
    { class: `kind ${kind}` },
    title,
    element("p", { class: "big" }, part.figure, part.range),
    part.gauge,
    part.words,
  );
  return { root, ...part };
}

/** A zone in one line: `Building, room for 600 people, 69% full`. */
export function headline(zone: Zone, counts: ZoneCounts | undefined): string {
  const type = typeName(zone.type);
  const parts = [type.charAt(0).toUpperCase() + type.slice(1)];
  for (const kind of KINDS) {
    const places = zone.capacity[kind];
    if (places !== undefined) parts.push(`room for ${countOf(kind, places)}`);
  }
  const share = occupancy(zone, counts);
  if (share !== undefined) parts.push(`${percent(share)} full`);
  return parts.join(", ");
}

export class Details {
  readonly #name = element("h2", { id: "details-name", tabindex: "-1" });
  readonly #headline = element("p", { class: "hint" });
  readonly #kinds = { person: makeKindSection("person"), vehicle: makeKindSection("vehicle") };
  readonly #kindsBox = element("div", { class: "kinds" });
  #zone: Zone | undefined;

  constructor(
    private readonly root: HTMLElement,
    private readonly site: Site,
    private readonly history: History,
    close: () => void,
  ) {
    const button = element(
      "button",
      { type: "button", class: "close", "aria-label": "Close, back to the list", title: "Close (Esc)" },
      icon("close"),
    );
    button.addEventListener("click", close);
    root.replaceChildren(
      element("header", { class: "details-head" }, element("div", {}, this.#name, this.#headline), button),
      this.#kindsBox,
      history.root,
    );
  }

  show(zone: Zone | undefined, counts: ZoneCounts | undefined): void {
    this.#zone = zone;
    this.root.hidden = zone === undefined;
    this.history.show(zone, counts);
    if (!zone) return;
    const order: Kind[] = mainKind(zone) === "person" ? ["person", "vehicle"] : ["vehicle", "person"];
    this.#kindsBox.replaceChildren(...order.map((kind) => this.#kinds[kind].root));
    setText(this.#name, zone.name);
    this.root.scrollTop = 0;
    this.update(counts);
  }

  focus(): void {
    this.#name.focus({ preventScroll: true });
  }

  update(counts: ZoneCounts | undefined): void {
    const zone = this.#zone;
    if (!zone) return;
    setText(this.#headline, headline(zone, counts));
    for (const kind of KINDS) this.#fill(kind, zone, counts);
    this.history.update(counts);
  }

  #fill(kind: Kind, zone: Zone, counts: ZoneCounts | undefined): void {
    const part = this.#kinds[kind];
    const numbers = counts?.[kind];
    if (!numbers) return;
    setText(part.figure, formatCount(numbers));
    setText(part.range, range(numbers));
    setText(part.words, explain(kind, numbers, this.site.freshSeconds).join(" "));
    part.root.classList.toggle("none", numbers.high === 0 || !isNumber(numbers));
    const end = Math.max(zone.capacity[kind] ?? 0, numbers.high, 1);
    const shares = [numbers.low, numbers.count - numbers.low, numbers.high - numbers.count].map((n) => n / end);
    shares.forEach((share, i) => {
      (part.gauge.children[i] as HTMLElement).style.width = `${(Math.max(0, share) * 100).toFixed(1)}%`;
    });
  }
}
