import type { Reporter } from "./reporting.js";

/** Answers that are remembered: a repeated command is answered again, and not executed again. */
const MAX_ANSWERS = 100;

export interface CommandAnswer {
  id: string;
  ok: boolean;
  text?: string;
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
    if (command === undefined || !(command.expires > nowS)) return undefined;
    const { id } = command;
    const answer = this.#answers.get(id) ?? this.#execute(command);
    this.#answers.delete(id);
    this.#answers.set(id, answer);
    for (const oldest of this.#answers.keys()) {
      if (this.#answers.size <= MAX_ANSWERS) break;
      this.#answers.delete(oldest);
    }
    return answer;
  }

  #execute({ id, command, interval_s, until, text }: Command): CommandAnswer {
    const { state, isOffSite } = this.#reporter;
    const refused = (reason: string): CommandAnswer => ({ id, ok: false, text: reason });
    if (command === "interval" && isPositive(interval_s)) state.intervalS = interval_s;
    else if (command === "pause" && isPositive(until)) state.pausedUntil = until;
    else if (command === "report") {
      if (isOffSite) return refused("off site");
      state.isRequested = true;
    } else if (command === "message") {
      if (!this.#showMessage?.(String(text ?? ""))) return refused("no screen");
    } else return refused("unknown command");
    return { id, ok: true };
  }
}

interface Command {
  id: string;
  command: unknown;
  expires: number;
  interval_s?: unknown;
  until?: unknown;
  text?: unknown;
}

function parse(payload: string): Command | undefined {
  try {
    const found = JSON.parse(payload) as Command;
    return typeof found.id === "string" && typeof found.expires === "number" ? found : undefined;
  } catch {
    return undefined;
  }
}

function isPositive(value: unknown): value is number {
  return typeof value === "number" && value > 0;
}
