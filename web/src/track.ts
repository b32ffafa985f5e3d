/** A small picture of the site with a device's own positions on it. */

import type { Polygons, Site } from "./api";
import type { Line } from "./device-api";
import { drawing } from "./element";
import { type Box, boxOf, widen } from "./geometry";

const WIDTH = 1000;

type Place = { lon: number; lat: number; used: boolean };

const isPlace = (line: Line): line is Line & Place => line.lat !== undefined && line.lon !== undefined;

/** Degrees → units of the picture: as wide as WIDTH, north up, true to shape at its middle. */
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

/** The site, and the positions in the order of their receipt. */
export function trail(site: Site, lines: Line[]): SVGSVGElement {
  const { height, at } = projection(widen(boxOf(site.boundary.polygons), 0.03));
  const places = lines.filter(isPlace);
  const used = places.filter((place) => place.used);
  const dot = ({ lon, lat, used: counts }: Place): SVGElement => {
    const [x, y] = at(lon, lat).split(" ");
    return drawing("circle", { cx: x, cy: y, r: counts ? "9" : "6", class: counts ? "fix" : "unused" });
  };
  const way = used.map(({ lon, lat }) => at(lon, lat)).join("L");
  return drawing(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${height.toFixed(0)}`,
      role: "img",
      "aria-label": `${used.length} positions on the map of ${site.boundary.name}, ${places.length - used.length} not used`,
    },
    drawing("path", { class: "boundary", d: outline(site.boundary.polygons, at), "stroke-width": "3" }),
    ...site.zones.map((zone) => drawing("path", { class: "zone", d: outline(zone.polygons, at), "stroke-width": "2" })),
    drawing("path", { class: "way", d: way && `M${way}`, "stroke-width": "4" }),
    ...places.map(dot),
  );
}
