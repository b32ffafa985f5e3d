/** The API that a device's owner uses: requests authenticated as the device. */

import { type Body, pathTo, request } from "./api";

export interface Credentials {
  id: string;
  secret: string;
}

export type Me = Body<"/v1/me">;
export type TraceLine = Body<"/v1/me/trace">["lines"][number];
type Provisioned = Body<"/v1/provision", "post">;

/** What happened to a message: its verdict, or its type for a message without one. */
export const outcome = ({ verdict, what }: Pick<TraceLine, "verdict" | "what">): string =>
  (verdict ?? what).replaceAll("_", " ");

/** Whether the position was used for counting. */
export const isUsed = ({ verdict }: Pick<TraceLine, "verdict">): boolean =>
  verdict === "accepted" || verdict === "outside";

/** The broker's address, `mqtts://host:port`. */
export const brokerUrl = ({ tls, host, port }: Provisioned["mqtt"]): string =>
  `${tls ? "mqtts" : "mqtt"}://${host}:${port}`;

/** The one-time code of an address `/me#join=…`; undefined if there is none. */
export function joinCode(hash: string): string | undefined {
  const code = new URLSearchParams(hash.replace(/^#/, "")).get("join");
  return code !== null && /^[A-Za-z0-9 -]{8,64}$/.test(code) ? code : undefined;
}

/** Basic credentials (RFC 7617), as UTF-8. */
export function basic({ id, secret }: Credentials): string {
  const bytes = new TextEncoder().encode(`${id}:${secret}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

async function send(url: URL, method: string, headers: Record<string, string>, body?: object): Promise<Response> {
  return request(url, {
    method,
    headers: body ? { ...headers, "content-type": "application/json" } : headers,
    // no cookies and no credentials of the browser's own: the header authenticates
    credentials: "omit",
    signal: AbortSignal.timeout(30_000),
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
}

/** Exchanges a one-time code for the device's new credentials. */
export async function redeem(base: string, code: string): Promise<Provisioned> {
  return (await send(new URL(pathTo("/v1/provision"), base), "POST", {}, { code })).json();
}

/** The API for one device. */
export class DeviceApi {
  constructor(
    private readonly base: string,
    private readonly credentials: Credentials,
  ) {}

  async me(): Promise<Me> {
    return (await this.#send(pathTo("/v1/me"))).json();
  }

  /** The messages of the last hour, oldest first. */
  async trace(): Promise<TraceLine[]> {
    const trace: Body<"/v1/me/trace"> = await (await this.#send(`${pathTo("/v1/me/trace")}?limit=200`)).json();
    return trace.lines;
  }

  async export(): Promise<Blob> {
    return (await this.#send(`${pathTo("/v1/me")}/export`)).blob();
  }

  /** Pauses for a number of seconds, or until resumed. */
  async pause(seconds: number | undefined): Promise<void> {
    await this.#send(pathTo("/v1/me/pause"), "POST", seconds === undefined ? {} : { for_s: seconds });
  }

  async resume(): Promise<void> {
    await this.#send(pathTo("/v1/me/resume"), "POST", {});
  }

  /** Erases the device; returns the server's confirmation. */
  async erase(): Promise<string> {
    const erasing: Body<"/v1/me", "delete"> = await (await this.#send(pathTo("/v1/me"), "DELETE")).json();
    return erasing.detail;
  }

  #send(path: string, method = "GET", body?: object): Promise<Response> {
    return send(new URL(path, this.base), method, { authorization: basic(this.credentials) }, body);
  }
}
