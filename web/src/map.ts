/** The map: the site's boundary and its coloured zones with counts. It loads nothing from other servers. */

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
import { isNumber, KINDS, type Kind, type Site, type Zone, type ZoneCounts } from "./api";
import { element, icon, setText } from "./element";
import { formatCount } from "./format";
import { anchorOf, areaOf, type Box, boxOf, widen } from "./geometry";
import { type LabelCandidate, placeLabels, widthOf } from "./labels";
import { type Mode, mainKind, NEUTRAL, type Palette, type Step } from "./scale";

setWorkerUrl(workerUrl);

type Features = Parameters<GeoJSONSource["setData"]>[0];

const zoneFeature = (zone: Zone, rank: number): object => ({
  type: "Feature",
  properties: { id: zone.id, rank },
  geometry: { type: "MultiPolygon", coordinates: zone.polygons },
});

/** Zones as GeoJSON, smaller ones above larger ones, so that they are visible and can be clicked. */
function zonesData(zones: readonly Zone[]): Features {
  const bySize = [...zones].sort((a, b) => areaOf(b) - areaOf(a));
  return { type: "FeatureCollection", features: bySize.map(zoneFeature) } as Features;
}

/** The fill colour, by the class in a zone's feature state. */
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
        paint: { "line-color": palette.selected, "line-width": 2, "line-opacity": when("hovered", 0.8) },
      },
      {
        id: "selected",
        type: "line",
        source: "zones",
        layout: { "line-join": "round" },
        paint: { "line-color": palette.selected, "line-width": 3.5, "line-opacity": when("selected", 1) },
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
  name: number; // width of the name
  counts: number; // width of all counts
  brief: number; // width of the main kind's count
  weight: number;
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
    counts: 0,
    brief: 0,
    weight: 0,
  };
}

/** The kind that a label shows if there is room for one count only. */
function leadOf(zone: Zone, counts: ZoneCounts | undefined, mode: Mode): Kind {
  if (mode !== "full") return mode;
  const main = mainKind(zone);
  const other: Kind = main === "person" ? "vehicle" : "person";
  return counts && counts[main].count === 0 && counts[other].count > 0 ? other : main;
}

/** Sets a label's counts and their widths. Zeros are left out, and hidden counts of the other kind. */
function fillLabel(label: Label, counts: ZoneCounts | undefined, mode: Mode): void {
  const lead = leadOf(label.zone, counts, mode);
  label.box.dataset.lead = lead;
  label.counts = 0;
  label.brief = 0;
  label.weight = counts?.[lead].count ?? 0;
  for (const kind of KINDS) {
    const numbers = counts?.[kind];
    const part = label.numbers[kind];
    part.hidden = !numbers || (isNumber(numbers) ? numbers.count === 0 : kind !== lead);
    if (!numbers || part.hidden) continue;
    part.classList.toggle("protected", !isNumber(numbers));
    setText(part.lastElementChild as Element, formatCount(numbers));
    const width = widthOf(formatCount(numbers), 7.4) + 14;
    label.counts += width + (label.counts > 0 ? 7 : 0);
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
  select: (zone: string | undefined) => void;
  reducedMotion: boolean; // jump instead of moving the map
}

/** Throws if the browser can't draw it (no WebGL 2). */
export class ZoneMap {
  readonly #map: GlMap;
  readonly #labels: Label[];
  readonly #overlay = element("div", { class: "labels", "aria-hidden": "true" });
  readonly #paintedSteps = new Map<string, Step>();
  readonly #extent: Box;
  #steps: ReadonlyMap<string, Step> = new Map();
  #hovered: string | undefined;
  #selected: string | undefined;
  #ready = false;
  #frame = 0;
  #movedByUser = false; // no longer shows the whole site
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

  /** Shows new colours and counts. */
  update(counts: ReadonlyMap<string, ZoneCounts>, steps: ReadonlyMap<string, Step>, mode: Mode): void {
    this.#steps = steps;
    for (const label of this.#labels) fillLabel(label, counts.get(label.zone.id), mode);
    this.#paintZones();
    this.#layOutLabels();
  }

  /** Highlights a zone, and moves it into view if it isn't there. */
  select(zone: string | undefined): void {
    this.#setFlag("selected", this.#selected, zone);
    this.#selected = zone;
    const label = this.#labels.find((other) => other.zone.id === zone);
    if (label && !this.#inView(label)) this.#centre(label);
    this.#layOutLabels();
  }

  /** Sets how much of the map's edges other elements cover, in pixels. */
  setCovered(covered: Covered): void {
    this.#covered = covered;
  }

  /** Shows the whole site. The details may cover a part of it: beside them, the site would be too small. */
  fit(animated = true): void {
    this.#movedByUser = false;
    const { top, right, bottom } = this.#covered;
    const padding = { top: top + 24, right: right + 24, bottom: bottom + 24, left: 24 };
    this.#map.fitBounds(this.#extent, { padding, ...(animated ? this.#animation() : { duration: 0 }) });
  }

  setPalette(palette: Palette): void {
    const paint = (layer: string, property: string, value: unknown): void => {
      this.#map.setPaintProperty(layer, property as "fill-color", value as string);
    };
    this.#whenReady(() => {
      paint("ground", "background-color", palette.ground);
      paint("paper", "fill-color", palette.paper);
      paint("boundary", "line-color", palette.boundary);
      paint("zones", "fill-color", byStep(palette));
      paint("edges", "line-color", palette.edge);
      paint("hovered", "line-color", palette.selected);
      paint("selected", "line-color", palette.selected);
    });
  }

  #whenReady(action: () => void): void {
    if (this.#ready) action();
    else this.#map.once("load", action);
  }

  #animation(): { duration: number } {
    return { duration: this.options.reducedMotion ? 0 : 500 };
  }

  #listen(): void {
    this.#map.once("load", () => {
      this.#ready = true;
      this.#paintZones();
      this.#setFlag("selected", undefined, this.#selected);
      this.#layOutLabels();
    });
    this.#map.on("move", () => this.#layOutLabels());
    this.#map.on("movestart", (event) => {
      if (event.originalEvent) this.#movedByUser = true;
    });
    this.#map.on("resize", () => (this.#movedByUser ? this.#layOutLabels() : this.fit(false)));
    this.#map.on("click", (event) => this.options.select(this.#zoneAt(event.point)));
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
    this.#setFlag("hovered", this.#hovered, zone);
    this.#hovered = zone;
    this.#map.getCanvas().style.cursor = zone === undefined ? "" : "pointer";
    this.#layOutLabels();
  }

  #setFlag(state: string, from: string | undefined, to: string | undefined): void {
    if (!this.#ready) return;
    if (from !== undefined) this.#map.setFeatureState({ source: "zones", id: from }, { [state]: false });
    if (to !== undefined) this.#map.setFeatureState({ source: "zones", id: to }, { [state]: true });
  }

  #paintZones(): void {
    if (!this.#ready) return;
    for (const [zone, step] of this.#steps) {
      if (this.#paintedSteps.get(zone) === step) continue;
      this.#paintedSteps.set(zone, step);
      this.#map.setFeatureState({ source: "zones", id: zone }, { step });
    }
  }

  #inView(label: Label): boolean {
    const { x, y } = this.#map.project(label.anchor);
    const { clientWidth, clientHeight } = this.#map.getContainer();
    const { top, right, bottom, left } = this.#covered;
    return x > left + 40 && y > top + 40 && x < clientWidth - right - 40 && y < clientHeight - bottom - 40;
  }

  /** Moves the map so that a zone is in the middle of the uncovered part. */
  #centre(label: Label): void {
    this.#movedByUser = true;
    const { top, right, bottom, left } = this.#covered;
    this.#map.easeTo({ center: label.anchor, offset: [(left - right) / 2, (top - bottom) / 2], ...this.#animation() });
  }

  /** Places the labels again, at most once per frame. */
  #layOutLabels(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      const { clientWidth, clientHeight } = this.#map.getContainer();
      const candidates = this.#labels.map((label) => this.#candidate(label));
      const placed = placeLabels(candidates, clientWidth, clientHeight);
      this.#labels.forEach((label, index) => {
        const { x, y, pinned } = candidates[index] as LabelCandidate;
        const form = placed.get(label.zone.id);
        label.box.hidden = form === undefined;
        if (form === undefined) return;
        label.box.dataset.form = form;
        label.box.classList.toggle("pinned", pinned);
        label.box.style.transform = `translate(-50%, -50%) translate(${Math.round(x)}px, ${Math.round(y)}px)`;
      });
    });
  }

  #candidate(label: Label): LabelCandidate {
    const { x, y } = this.#map.project(label.anchor);
    const [west, south, east, north] = label.extent;
    const [left, right] = [this.#map.project([west, north]), this.#map.project([east, south])];
    const pinned = label.zone.id === this.#selected || label.zone.id === this.#hovered;
    const above = left.y - BESIDE_PX;
    const half = Math.max(label.name, label.counts) / 2 + BESIDE_PX;
    return {
      id: label.zone.id,
      x: pinned ? Math.min(Math.max(x, this.#covered.left + half), this.#map.getContainer().clientWidth - half) : x,
      // Not on the pinned zone but above it, or below it if there is no room above.
      y: !pinned ? y : above > this.#covered.top + BESIDE_PX ? above : right.y + BESIDE_PX,
      room: right.x - left.x,
      name: label.name,
      numbers: label.counts,
      brief: label.brief,
      // By order of magnitude, then by size, so that labels of zones with similar counts don't alternate.
      weight: Math.floor(Math.log2(label.weight + 1)) + Math.min(0.9, label.area * 1e6),
      pinned,
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
