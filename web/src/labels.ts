/** Labels on the map: which of them fit, and in which form. */

/** A label to place at a point of the screen, in pixels. */
export interface LabelCandidate {
  id: string;
  x: number;
  y: number;
  room: number; // width of the zone on the screen
  name: number; // width of the name
  numbers: number; // width of the counts, 0 without any
  brief: number; // width of the main count alone
  weight: number; // heavier labels are placed first
  pinned: boolean; // the selected zone and the one under the pointer: always shown in full
}

export type LabelForm = "full" | "brief";

const LINE = 16;
const PADDING = 4;
const GAP = 3;

/** An upper bound of a text's width in pixels, without a layout by the browser. */
export const widthOf = (text: string, perLetter: number): number => Math.ceil(text.length * perLetter);

interface Rectangle {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

function rectangle(candidate: LabelCandidate, form: LabelForm): Rectangle {
  const text = form === "full" ? Math.max(candidate.name, candidate.numbers) : candidate.brief;
  const lines = form === "full" && candidate.numbers > 0 ? 2 : 1;
  const [width, height] = [text + PADDING + 2 * GAP, lines * LINE + 2 * GAP];
  const [left, top] = [candidate.x - width / 2, candidate.y - height / 2];
  return { left, top, right: left + width, bottom: top + height };
}

const overlap = (a: Rectangle, b: Rectangle): boolean =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** The forms that fit the zone's size on the screen, best first. */
function formsOf(candidate: LabelCandidate): LabelForm[] {
  if (candidate.pinned) return ["full"];
  const forms: LabelForm[] = [];
  if (candidate.room * 1.25 >= candidate.name) forms.push("full");
  if (candidate.numbers > 0 && candidate.room * 1.8 >= candidate.brief) forms.push("brief");
  return forms;
}

/** Chooses labels so that none covers another: pinned ones first, then by weight. */
export function placeLabels(
  candidates: readonly LabelCandidate[],
  width: number,
  height: number,
): Map<string, LabelForm> {
  const placed = new Map<string, LabelForm>();
  const occupied: Rectangle[] = [];
  const order = [...candidates].sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.weight - a.weight);
  for (const candidate of order) {
    for (const form of formsOf(candidate)) {
      const space = rectangle(candidate, form);
      const visible = space.right > 0 && space.bottom > 0 && space.left < width && space.top < height;
      if (!visible || (!candidate.pinned && occupied.some((other) => overlap(space, other)))) continue;
      occupied.push(space);
      placed.set(candidate.id, form);
      break;
    }
  }
  return placed;
}
