/** A drawing of the site with a device's positions. */

import type { Polygons, Site } from "./api";
import { isUsed, type TraceLine } from "./device-api";
import { svgElement } from "./element";
import { type Box, boxOf, widen } from "./geometry";

const WIDTH = 1000;

type Position = TraceLine & { lon: number; lat: number };

const hasPosition = (line: TraceLine): line is Position => line.lat !== null && line.lon !== null;

/** Degrees → units of the drawing: WIDTH wide, north up, scaled alike in both directions at its centre. */
function projection([west, south, east, north]: Box): { height: number; at: (lon: number, lat: number) => string } {
  const shrink = Math.cos((((south + north) / 2) * Math.PI) / 180);
  const scale = WIDTH / ((east - west) * shrink || 1);
  const at = (lon: number, lat: number): string =>
    `${((lon - west) * shrink * scale).toFixed(1)} ${((north - lat) * scale).toFixed(1)}`;
  return { height: (north - south) * scale, at };
}

const outline = (polygons: Polygons, at: (lon: number, lat: number) => string): string =>
  polygons
    .flat()
    .map((ring) => `M${ring.map(([lon, lat]) => at(lon, lat)).join("L")}Z`)
    .join("");

/** The site, and the positions in the order they were received. */
export function drawTrack(site: Site, lines: TraceLine[]): SVGSVGElement {
  const { height, at } = projection(widen(boxOf(site.boundary.polygons), 0.03));
  const positions = lines.filter(hasPosition);
  const used = positions.filter(isUsed);
  const dot = (position: Position): SVGElement => {
    const [x, y] = at(position.lon, position.lat).split(" ");
    const [r, style] = isUsed(position) ? ["9", "fix"] : ["6", "unused"];
    return svgElement("circle", { cx: x, cy: y, r, class: style });
  };
  const path = used.map(({ lon, lat }) => at(lon, lat)).join("L");
  return svgElement(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${height.toFixed(0)}`,
      role: "img",
      "aria-label": `${used.length} positions on the map of ${site.boundary.name}, ${positions.length - used.length} not used`,
    },
    svgElement("path", { class: "boundary", d: outline(site.boundary.polygons, at), "stroke-width": "3" }),
    ...site.zones.map((zone) =>
      svgElement("path", { class: "zone", d: outline(zone.polygons, at), "stroke-width": "2" }),
    ),
    svgElement("path", { class: "path", d: path && `M${path}`, "stroke-width": "4" }),
    ...positions.map(dot),
  );
}
