/** Numbers and names on the map: which labels fit, and where. */

/** A label that would like to be shown at a point of the screen (pixels). */
export interface Candidate {
  id: string;
  x: number;
  y: number;
  room: number; // width of the zone on the screen
  name: number; // width of the name
  numbers: number; // width of the numbers, 0 where there is nothing to say
  brief: number; // width of the main number alone
  weight: number; // the heavier, the sooner it gets its place
  wanted: boolean; // the chosen zone, and the one under the pointer: always shown, and whole
}

export type Form = "full" | "brief";

const LINE = 16;
const PADDING = 4;
const GAP = 3;

/** Width of a text in pixels, on the safe side, without asking the browser to lay it out. */
export const widthOf = (text: string, perLetter: number): number => Math.ceil(text.length * perLetter);

interface Rectangle {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

function rectangle(candidate: Candidate, form: Form): Rectangle {
  const text = form === "full" ? Math.max(candidate.name, candidate.numbers) : candidate.brief;
  const lines = form === "full" && candidate.numbers > 0 ? 2 : 1;
  const [width, height] = [text + PADDING + 2 * GAP, lines * LINE + 2 * GAP];
  const [left, top] = [candidate.x - width / 2, candidate.y - height / 2];
  return { left, top, right: left + width, bottom: top + height };
}

const overlap = (a: Rectangle, b: Rectangle): boolean =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** The forms that suit the zone's size on the screen, the best first. */
function formsOf(candidate: Candidate): Form[] {
  if (candidate.wanted) return ["full"];
  const forms: Form[] = [];
  if (candidate.room * 1.25 >= candidate.name) forms.push("full");
  if (candidate.numbers > 0 && candidate.room * 1.8 >= candidate.brief) forms.push("brief");
  return forms;
}

/** Chooses labels so that none covers another: wanted ones first, then by weight. */
export function place(candidates: readonly Candidate[], width: number, height: number): Map<string, Form> {
  const placed = new Map<string, Form>();
  const taken: Rectangle[] = [];
  const order = [...candidates].sort((a, b) => Number(b.wanted) - Number(a.wanted) || b.weight - a.weight);
  for (const candidate of order) {
    for (const form of formsOf(candidate)) {
      const space = rectangle(candidate, form);
      const seen = space.right > 0 && space.bottom > 0 && space.left < width && space.top < height;
      if (!seen || (!candidate.wanted && taken.some((other) => overlap(space, other)))) continue;
      taken.push(space);
      placed.set(candidate.id, form);
      break;
    }
  }
  return placed;
}
