/** The map: the site's boundary and its zones, coloured, with numbers on them. Nothing from elsewhere. */

import "maplibre-gl/dist/maplibre-gl.css";
import {
  type ExpressionSpecification,
  type GeoJSONSource,
  Map as GlMap,
  NavigationControl,
  ScaleControl,
  type StyleSpecification,
  setWorkerUrl,
} from "maplibre-gl";
import workerUrl from "maplibre-gl/dist/maplibre-gl-worker.mjs?url";
import { KINDS, type Kind, known, type Site, type Zone, type ZoneCount } from "./api";
import { element, icon, setText } from "./element";
import { shown } from "./format";
import { anchorOf, areaOf, type Box, boxOf, widen } from "./geometry";
import { type Candidate, place, widthOf } from "./labels";
import { type Mode, mainKind, NEUTRAL, type Palette, type Step } from "./scale";

setWorkerUrl(workerUrl);

type Features = Parameters<GeoJSONSource["setData"]>[0];

const zoneFeature = (zone: Zone, rank: number): object => ({
  type: "Feature",
  properties: { id: zone.id, rank },
  geometry: { type: "MultiPolygon", coordinates: zone.polygons },
});

/** Zones as GeoJSON; the smaller one lies above, so that it can be seen and hit. */
function zonesData(zones: readonly Zone[]): Features {
  const bySize = [...zones].sort((a, b) => areaOf(b) - areaOf(a));
  return { type: "FeatureCollection", features: bySize.map(zoneFeature) } as Features;
}

/** A colour by the class that a zone has as its state. */
function byStep(palette: Palette): ExpressionSpecification {
  const cases = palette.steps.flatMap((colour, step) => [step, colour]);
  return [
    "match",
    ["coalesce", ["feature-state", "step"], NEUTRAL],
    ...cases,
    palette.neutral,
  ] as unknown as ExpressionSpecification;
}

const when = (state: string, value: number): ExpressionSpecification => [
  "case",
  ["boolean", ["feature-state", state], false],
  value,
  0,
];

function styleOf(site: Site, palette: Palette): StyleSpecification {
  const boundary = { type: "FeatureCollection", features: [zoneFeature(site.boundary, 0)] } as Features;
  return {
    version: 8,
    sources: {
      boundary: { type: "geojson", data: boundary },
      zones: { type: "geojson", data: zonesData(site.zones), promoteId: "id" },
    },
    layers: [
      { id: "ground", type: "background", paint: { "background-color": palette.ground } },
      { id: "paper", type: "fill", source: "boundary", paint: { "fill-color": palette.paper } },
      {
        id: "boundary",
        type: "line",
        source: "boundary",
        layout: { "line-join": "round" },
        paint: { "line-color": palette.boundary, "line-width": 1.6 },
      },
      {
        id: "zones",
        type: "fill",
        source: "zones",
        layout: { "fill-sort-key": ["get", "rank"] },
        paint: { "fill-color": byStep(palette), "fill-antialias": false },
      },
      {
        id: "edges",
        type: "line",
        source: "zones",
        layout: { "line-join": "round" },
        paint: { "line-color": palette.edge, "line-width": 0.8 },
      },
      {
        id: "hovered",
        type: "line",
        source: "zones",
        layout: { "line-join": "round" },
        paint: { "line-color": palette.chosen, "line-width": 2, "line-opacity": when("hovered", 0.8) },
      },
      {
        id: "chosen",
        type: "line",
        source: "zones",
        layout: { "line-join": "round" },
        paint: { "line-color": palette.chosen, "line-width": 3.5, "line-opacity": when("chosen", 1) },
      },
    ],
  };
}

interface Label {
  zone: Zone;
  box: HTMLElement;
  numbers: { person: HTMLElement; vehicle: HTMLElement };
  anchor: [number, number];
  extent: Box;
  area: number;
  name: number;
  figures: number; // width of all numbers, and of the main kind's alone
  brief: number;
  weighs: number;
}

function makeLabel(zone: Zone): Label {
  const part = (kind: Kind): HTMLElement => element("span", { class: kind }, icon(kind), element("b"));
  const numbers = { person: part("person"), vehicle: part("vehicle") };
  const order = mainKind(zone) === "person" ? [numbers.person, numbers.vehicle] : [numbers.vehicle, numbers.person];
  const box = element(
    "div",
    { class: "label" },
    element("span", { class: "label-name" }, zone.name),
    element("span", { class: "label-numbers" }, ...order),
  );
  box.hidden = true;
  return {
    zone,
    box,
    numbers,
    anchor: anchorOf(zone),
    extent: boxOf(zone.polygons),
    area: areaOf(zone),
    name: widthOf(zone.name, 6.3),
    figures: 0,
    brief: 0,
    weighs: 0,
  };
}

/** The kind that a label is about where there is room for one number only. */
function leadOf(zone: Zone, counts: ZoneCount | undefined, mode: Mode): Kind {
  if (mode !== "full") return mode;
  const main = mainKind(zone);
  const other: Kind = main === "person" ? "vehicle" : "person";
  return counts && counts[main].count === 0 && counts[other].count > 0 ? other : main;
}

/** Sets a label's numbers, those that aren't 0 or of the other kind and small, and how wide they are. */
function fillLabel(label: Label, counts: ZoneCount | undefined, mode: Mode): void {
  const lead = leadOf(label.zone, counts, mode);
  label.box.dataset.lead = lead;
  label.figures = 0;
  label.brief = 0;
  label.weighs = counts?.[lead].count ?? 0;
  for (const kind of KINDS) {
    const numbers = counts?.[kind];
    const part = label.numbers[kind];
    part.hidden = !numbers || (known(numbers) ? numbers.count === 0 : kind !== lead);
    if (!numbers || part.hidden) continue;
    part.classList.toggle("untold", !known(numbers));
    setText(part.lastElementChild as Element, shown(numbers));
    const width = widthOf(shown(numbers), 7.4) + 14;
    label.figures += width + (label.figures > 0 ? 7 : 0);
    if (kind === lead) label.brief = width;
  }
}

/** From a zone's edge to the middle of a label beside it. */
const BESIDE_PX = 26;

export interface Covered {
  top: number;
  right: number;
  bottom: number;
  left: number;
}

export interface MapOptions {
  palette: Palette;
  choose: (zone: string | undefined) => void;
  still: boolean; // no movement: who asked for less of it gets jumps
}

/** Throws where the browser can't draw it (no WebGL). */
export class ZoneMap {
  readonly #map: GlMap;
  readonly #labels: Label[];
  readonly #overlay = element("div", { class: "labels", "aria-hidden": "true" });
  readonly #shownSteps = new Map<string, Step>();
  readonly #extent: Box;
  #steps: ReadonlyMap<string, Step> = new Map();
  #hovered: string | undefined;
  #chosen: string | undefined;
  #ready = false;
  #frame = 0;
  #moved = false; // by somebody: no longer the whole site
  #covered: Covered = { top: 0, right: 0, bottom: 0, left: 0 };

  constructor(
    container: HTMLElement,
    site: Site,
    private readonly options: MapOptions,
  ) {
    this.#extent = boxOf(site.boundary.polygons);
    this.#map = new GlMap({
      container,
      style: styleOf(site, options.palette),
      bounds: this.#extent,
      fitBoundsOptions: { padding: 24 },
      maxBounds: widen(this.#extent, 4),
      maxZoom: 20,
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      fadeDuration: 0,
      locale: { "Map.Title": `Map of ${site.name}. The list of zones has the same numbers as text.` },
    });
    this.#map.touchZoomRotate.disableRotation();
    this.#map.keyboard.disableRotation();
    this.#map.addControl(new NavigationControl({ showCompass: false }), "top-right");
    this.#map.addControl(this.#fitControl(), "top-right");
    this.#map.addControl(new ScaleControl({ maxWidth: 90 }), "bottom-left");
    this.#labels = site.zones.map(makeLabel);
    this.#overlay.append(...this.#labels.map((label) => label.box));
    this.#map.getCanvasContainer().append(this.#overlay);
    this.#listen();
  }

  /** New colours and numbers. */
  update(counts: ReadonlyMap<string, ZoneCount>, steps: ReadonlyMap<string, Step>, mode: Mode): void {
    this.#steps = steps;
    for (const label of this.#labels) fillLabel(label, counts.get(label.zone.id), mode);
    this.#colour();
    this.#layLabels();
  }

  /** Marks a zone; brings it into view where it isn't. */
  select(zone: string | undefined): void {
    this.#mark("chosen", this.#chosen, zone);
    this.#chosen = zone;
    const label = this.#labels.find((other) => other.zone.id === zone);
    if (label && !this.#inView(label)) this.#bring(label);
    this.#layLabels();
  }

  /** How much of the map's edges is covered by other things (pixels). */
  cover(covered: Covered): void {
    this.#covered = covered;
  }

  /** Shows the whole site. A card at the side may cover some of it: the site would get too small beside it. */
  fit(moving = true): void {
    this.#moved = false;
    const { top, right, bottom } = this.#covered;
    const padding = { top: top + 24, right: right + 24, bottom: bottom + 24, left: 24 };
    this.#map.fitBounds(this.#extent, { padding, ...(moving ? this.#pace() : { duration: 0 }) });
  }

  dress(palette: Palette): void {
    const paint = (layer: string, property: string, value: unknown): void => {
      this.#map.setPaintProperty(layer, property as "fill-color", value as string);
    };
    this.#whenReady(() => {
      paint("ground", "background-color", palette.ground);
      paint("paper", "fill-color", palette.paper);
      paint("boundary", "line-color", palette.boundary);
      paint("zones", "fill-color", byStep(palette));
      paint("edges", "line-color", palette.edge);
      paint("hovered", "line-color", palette.chosen);
      paint("chosen", "line-color", palette.chosen);
    });
  }

  #whenReady(act: () => void): void {
    if (this.#ready) act();
    else this.#map.once("load", act);
  }

  #pace(): { duration: number } {
    return { duration: this.options.still ? 0 : 500 };
  }

  #listen(): void {
    this.#map.once("load", () => {
      this.#ready = true;
      this.#colour();
      this.#mark("chosen", undefined, this.#chosen);
      this.#layLabels();
    });
    this.#map.on("move", () => this.#layLabels());
    this.#map.on("movestart", (event) => {
      if (event.originalEvent) this.#moved = true;
    });
    this.#map.on("resize", () => (this.#moved ? this.#layLabels() : this.fit(false)));
    this.#map.on("click", (event) => this.options.choose(this.#zoneAt(event.point)));
    this.#map.on("mousemove", (event) => this.#hover(this.#zoneAt(event.point)));
    this.#map.on("mouseout", () => this.#hover(undefined));
  }

  #zoneAt(point: { x: number; y: number }): string | undefined {
    if (!this.#ready) return undefined;
    const [top] = this.#map.queryRenderedFeatures([point.x, point.y], { layers: ["zones"] });
    return top === undefined ? undefined : String(top.properties.id);
  }

  #hover(zone: string | undefined): void {
    if (zone === this.#hovered) return;
    this.#mark("hovered", this.#hovered, zone);
    this.#hovered = zone;
    this.#map.getCanvas().style.cursor = zone === undefined ? "" : "pointer";
    this.#layLabels();
  }

  #mark(state: string, from: string | undefined, to: string | undefined): void {
    if (!this.#ready) return;
    if (from !== undefined) this.#map.setFeatureState({ source: "zones", id: from }, { [state]: false });
    if (to !== undefined) this.#map.setFeatureState({ source: "zones", id: to }, { [state]: true });
  }

  #colour(): void {
    if (!this.#ready) return;
    for (const [zone, step] of this.#steps) {
      if (this.#shownSteps.get(zone) === step) continue;
      this.#shownSteps.set(zone, step);
      this.#map.setFeatureState({ source: "zones", id: zone }, { step });
    }
  }

  #inView(label: Label): boolean {
    const { x, y } = this.#map.project(label.anchor);
    const { clientWidth, clientHeight } = this.#map.getContainer();
    const { top, right, bottom, left } = this.#covered;
    return x > left + 40 && y > top + 40 && x < clientWidth - right - 40 && y < clientHeight - bottom - 40;
  }

  /** Moves the map so that a zone lies in the middle of what isn't covered. */
  #bring(label: Label): void {
    this.#moved = true;
    const { top, right, bottom, left } = this.#covered;
    this.#map.easeTo({ center: label.anchor, offset: [(left - right) / 2, (top - bottom) / 2], ...this.#pace() });
  }

  /** Lays the labels out anew, at most once a frame. */
  #layLabels(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      const { clientWidth, clientHeight } = this.#map.getContainer();
      const candidates = this.#labels.map((label) => this.#candidate(label));
      const placed = place(candidates, clientWidth, clientHeight);
      this.#labels.forEach((label, index) => {
        const { x, y, wanted } = candidates[index] as Candidate;
        const form = placed.get(label.zone.id);
        label.box.hidden = form === undefined;
        if (form === undefined) return;
        label.box.dataset.form = form;
        label.box.classList.toggle("wanted", wanted);
        label.box.style.transform = `translate(-50%, -50%) translate(${Math.round(x)}px, ${Math.round(y)}px)`;
      });
    });
  }

  #candidate(label: Label): Candidate {
    const { x, y } = this.#map.project(label.anchor);
    const [west, south, east, north] = label.extent;
    const [left, right] = [this.#map.project([west, north]), this.#map.project([east, south])];
    const wanted = label.zone.id === this.#chosen || label.zone.id === this.#hovered;
    const above = left.y - BESIDE_PX;
    const half = Math.max(label.name, label.figures) / 2 + BESIDE_PX;
    return {
      id: label.zone.id,
      x: wanted ? Math.min(Math.max(x, this.#covered.left + half), this.#map.getContainer().clientWidth - half) : x,
      // Not on the zone that somebody looks at, but above it, or below where there is no room.
      y: !wanted ? y : above > this.#covered.top + BESIDE_PX ? above : right.y + BESIDE_PX,
      room: right.x - left.x,
      name: label.name,
      numbers: label.figures,
      brief: label.brief,
      // By order of magnitude, then by size: two zones of like numbers don't take turns.
      weight: Math.floor(Math.log2(label.weighs + 1)) + Math.min(0.9, label.area * 1e6),
      wanted,
    };
  }

  #fitControl(): { onAdd: () => HTMLElement; onRemove: () => void } {
    const button = element(
      "button",
      { type: "button", title: "Show the whole site", "aria-label": "Show the whole site" },
      icon("fit"),
    );
    button.addEventListener("click", () => this.fit());
    const group = element("div", { class: "maplibregl-ctrl maplibregl-ctrl-group" }, button);
    return { onAdd: () => group, onRemove: () => group.remove() };
  }
}
