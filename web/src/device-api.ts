/** A device's own data: what the server says of it, asked with the device's credentials. */

import { ApiError } from "./api";

export interface Credentials {
  id: string;
  secret: string;
}

export interface Look {
  at: string;
  actor: string;
  reason: string;
}

export interface Me {
  device: string;
  site: string;
  kind: string;
  status: string;
  label: string;
  groups: string[];
  resume: string | undefined;
  connected: boolean | undefined;
  zones: string[];
  last: { t: string | undefined; verdict: string | undefined } | undefined;
  looks: Look[];
}

/** One message of the last hour, and what became of it. */
export interface Line {
  received: string;
  what: string;
  lat: number | undefined;
  lon: number | undefined;
  used: boolean;
  why: string;
}

/** What a one-time link gives. */
export interface Given extends Credentials {
  broker: string;
  topic: string;
}

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const asObject = (value: unknown): Json => (isObject(value) ? value : {});
const asText = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
const asNumber = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) ? value : undefined;
const asTexts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((entry): entry is string => typeof entry === "string") : [];
const asObjects = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isObject) : []);

export function parseMe(value: unknown): Me {
  const from = asObject(value);
  const last = from.last;
  return {
    device: asText(from.device) ?? "",
    site: asText(from.site) ?? "",
    kind: asText(from.kind) ?? "",
    status: asText(from.status) ?? "",
    label: asText(from.label) ?? "",
    groups: asTexts(from.groups),
    resume: asText(from.resume),
    connected: typeof from.connected === "boolean" ? from.connected : undefined,
    zones: asTexts(from.zones),
    last: isObject(last) ? { t: asText(last.t), verdict: asText(last.verdict) } : undefined,
    looks: asObjects(from.looks).map((look) => ({
      at: asText(look.at) ?? "",
      actor: asText(look.actor) ?? "",
      reason: asText(look.reason) ?? "",
    })),
  };
}

/** The messages, oldest first. */
export function parseLines(value: unknown): Line[] {
  return asObjects(asObject(value).lines).map((line) => {
    const verdict = asText(line.verdict);
    return {
      received: asText(line.received) ?? "",
      what: (verdict ?? asText(line.what) ?? "").replaceAll("_", " "),
      lat: asNumber(line.lat),
      lon: asNumber(line.lon),
      used: verdict === "accepted" || verdict === "outside",
      why: asText(line.why) ?? "",
    };
  });
}

export function parseGiven(value: unknown): Given {
  const from = asObject(value);
  const mqtt = asObject(from.mqtt);
  const id = asText(from.device);
  const secret = asText(from.secret);
  if (id === undefined || secret === undefined) throw new ApiError(0, "The server gave no credentials.");
  const scheme = mqtt.tls === true ? "mqtts" : "mqtt";
  return {
    id,
    secret,
    broker: `${scheme}://${asText(mqtt.host) ?? "?"}:${asNumber(mqtt.port) ?? "?"}`,
    topic: asText(from.topic) ?? "",
  };
}

/** The one-time code of an address `/me#join=…`; undefined where there is none. */
export function joinCode(hash: string): string | undefined {
  const code = new URLSearchParams(hash.replace(/^#/, "")).get("join");
  return code !== null && /^[A-Za-z0-9 -]{8,64}$/.test(code) ? code : undefined;
}

/** Basic credentials (RFC 7617), as UTF-8. */
export function basic({ id, secret }: Credentials): string {
  const bytes = new TextEncoder().encode(`${id}:${secret}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

async function asked(url: URL, options: RequestInit): Promise<Response> {
  const answer = await fetch(url, {
    ...options,
    cache: "no-store",
    // nothing that the browser would send by itself: the credentials in the header are all
    credentials: "omit",
    signal: AbortSignal.timeout(30_000),
  });
  if (answer.ok) return answer;
  const problem = asObject(await answer.json().catch(() => undefined));
  const said = asText(problem.detail) ?? asText(problem.title);
  throw new ApiError(answer.status, said ?? `The server answered ${answer.status}.`);
}

/** Uses up a one-time code. */
export async function redeem(base: string, code: string): Promise<Given> {
  const answer = await asked(new URL("v1/provision", base), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code }),
  });
  return parseGiven(await answer.json());
}

/** The server's interface for one device. */
export class Own {
  constructor(
    private readonly base: string,
    private readonly credentials: Credentials,
  ) {}

  async me(): Promise<Me> {
    return parseMe(await (await this.#ask("v1/me")).json());
  }

  async lines(): Promise<Line[]> {
    return parseLines(await (await this.#ask("v1/me/trace?limit=200")).json());
  }

  async everything(): Promise<Blob> {
    return (await this.#ask("v1/me/export")).blob();
  }

  /** For so many seconds, or until resumed. */
  async pause(seconds: number | undefined): Promise<void> {
    await this.#ask("v1/me/pause", "POST", seconds === undefined ? {} : { for_s: seconds });
  }

  async resume(): Promise<void> {
    await this.#ask("v1/me/resume", "POST", {});
  }

  async erase(): Promise<string> {
    const answer = asObject(await (await this.#ask("v1/me", "DELETE")).json());
    return asText(answer.detail) ?? "It is being erased.";
  }

  #ask(path: string, method = "GET", body?: object): Promise<Response> {
    const headers: Record<string, string> = { authorization: basic(this.credentials) };
    if (body) headers["content-type"] = "application/json";
    return asked(new URL(path, this.base), { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
  }
}
