import type { Reporter } from "./reporting.js";

/** Answers that are remembered: a repeated command is answered again, and not executed again. */
const MAX_ANSWERS = 64;
const MAX_ID_CHARS = 64;
const MAX_TEXT_CHARS = 256;

export interface CommandAnswer {
  id: string;
  ok: boolean;
  text?: string;
}

interface Command {
  id: string;
  command: unknown;
  expires: number;
  interval_s?: unknown;
  until?: unknown;
  text?: unknown;
}

/** Executes the commands of docs/guides/commands.md on a device's reporter. */
export class CommandExecutor {
  readonly #reporter: Reporter;
  readonly #showMessage: ((text: string) => boolean) | undefined;
  readonly #answers = new Map<string, CommandAnswer>();

  /** @param showMessage shows a text, and returns whether a person can read it */
  constructor(reporter: Reporter, showMessage: ((text: string) => boolean) | undefined) {
    this.#reporter = reporter;
    this.#showMessage = showMessage;
  }

  /** Executes a command unless it has expired; returns the answer, undefined if there is none. */
  execute(payload: string, nowS: number): CommandAnswer | undefined {
    const command = parse(payload);
    if (command === undefined || !(nowS < command.expires)) return undefined;
    const known = this.#answers.get(command.id);
    if (known) return known;
    const problem = this.#problem(command);
    const { id } = command;
    const answer = problem ? { id, ok: false, text: problem.slice(0, MAX_TEXT_CHARS) } : { id, ok: true };
    this.#answers.set(id, answer);
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > MAX_ANSWERS && oldest !== undefined) this.#answers.delete(oldest);
    return answer;
  }

  /** Executes a command; returns why that is refused, "" if it is not. */
  #problem({ command, interval_s, until, text }: Command): string {
    const { state, isOffSite } = this.#reporter;
    switch (command) {
      case "interval":
        if (!isPositive(interval_s)) return "a parameter is missing";
        state.intervalS = interval_s;
        return "";
      case "pause":
        if (!isPositive(until)) return "a parameter is missing";
        state.pausedUntil = until;
        return "";
      case "report":
        if (isOffSite) return "off site";
        state.isRequested = true;
        return "";
      case "message":
        return this.#shows(text) ? "" : "no screen";
      default:
        return "unknown command";
    }
  }

  #shows(text: unknown): boolean {
    try {
      return this.#showMessage?.(typeof text === "string" ? text.slice(0, MAX_TEXT_CHARS) : "") ?? false;
    } catch {
      return false;
    }
  }
}

function parse(payload: string): Command | undefined {
  try {
    const found = JSON.parse(payload) as Command;
    const isValid = typeof found.id === "string" && found.id.length > 0 && found.id.length <= MAX_ID_CHARS;
    return isValid && typeof found.expires === "number" ? found : undefined;
  } catch {
    return undefined;
  }
}

function isPositive(value: unknown): value is number {
  return typeof value === "number" && value > 0 && value < Infinity;
}
