/** Creates and finds elements; never from HTML strings, so that names from a site file stay text. */

type Attributes = Record<string, string | undefined>;

function fill<Created extends Element>(created: Created, attributes: Attributes, children: (Node | string)[]): Created {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

/** An HTML element with attributes and children: `element("p", { class: "age" }, "now")`. */
export const element = <Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] => fill(document.createElement(tag), attributes, children);

const SVG = "http://www.w3.org/2000/svg";

export const svgElement = <Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Node[]
): SVGElementTagNameMap[Tag] => fill(document.createElementNS(SVG, tag), attributes, children);

/** One of the page's symbols, as decoration beside a text. */
export const icon = (name: "person" | "vehicle" | "close" | "fit"): SVGSVGElement =>
  svgElement("svg", { class: "icon", "aria-hidden": "true" }, svgElement("use", { href: `#icon-${name}` }));

/** The page's element with this id; throws if the page has none. */
export function byId<Found extends HTMLElement = HTMLElement>(id: string): Found {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no element with the id “${id}”.`);
  return found as Found;
}

/** Sets a text if it differs: an unchanged page costs nothing and disturbs no screen reader. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node: Element, name: string, value: string): void {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
