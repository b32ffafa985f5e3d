import { type DeviceIdentity, RetryLaterError, type Transport, type TransportEvents } from "./transport.js";

const TIMEOUT_MS = 15_000;
/** Browsers allow 64 KiB of bodies with `keepalive` at a time. */
const MAX_KEEPALIVE_BYTES = 60_000;
const SITE_POLL_MS = 600_000;
/** The longest `Retry-After` that is obeyed. */
const MAX_RETRY_AFTER_S = 3_600;
/** The status of a request without a fix that can be stored. */
const NONE_STORED = 422;

export interface HttpOptions extends DeviceIdentity {
  /** headcount's address, such as `https://count.example.org`; in a page that headcount serves, `location.origin`. */
  url: string;
  /** The device's secret. */
  secret: string;
}

/** `POST /v1/fixes` with the device's credentials. There are no commands and no status; the site is polled. */
export class HttpTransport implements Transport {
  readonly identity: DeviceIdentity;
  readonly #url: string;
  readonly #authorization: string;
  #poll: ReturnType<typeof setInterval> | undefined;
  /** The body that was sent last and its key: a repeated request has the same key. */
  #last = { body: "", key: "" };

  constructor(options: HttpOptions) {
    const { url, site, kind, id, secret } = options;
    this.identity = { site, kind, id };
    this.#url = url.replace(/\/*$/, "/");
    this.#authorization = `Basic ${btoa(`${id}:${secret}`)}`;
  }

  async open(events: TransportEvents): Promise<void> {
    await this.close();
    const path = `v1/sites/${encodeURIComponent(this.identity.site)}`;
    const init = { headers: { accept: "application/geo+json" } };
    const poll = async (): Promise<void> => events.site(await this.#request(path, init, textOf));
    await poll();
    this.#poll = setInterval(() => poll().catch(() => undefined), SITE_POLL_MS);
    (this.#poll as { unref?: () => void }).unref?.();
  }

  async send(payloads: readonly string[]): Promise<number> {
    const body = `[${payloads.join(",")}]`;
    if (body !== this.#last.body) this.#last = { body, key: `${Date.now()}-${Math.random()}` };
    const headers = {
      authorization: this.#authorization,
      "content-type": "application/json",
      "idempotency-key": this.#last.key,
    };
    const init = { method: "POST", headers, body, keepalive: body.length < MAX_KEEPALIVE_BYTES };
    return this.#request("v1/fixes", init, storedOf);
  }

  async answer(): Promise<void> {}

  async close(): Promise<void> {
    clearInterval(this.#poll);
  }

  async #request<T>(path: string, init: RequestInit, read: (response: Response) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    // unlike AbortSignal.timeout, it keeps a Node.js program running that waits for nothing else
    const timer = setTimeout(() => controller.abort(new Error(`${path}: no answer`)), TIMEOUT_MS);
    try {
      const options: RequestInit = { ...init, credentials: "omit", redirect: "error", signal: controller.signal };
      return await read(await fetch(new URL(path, this.#url), options));
    } finally {
      clearTimeout(timer);
    }
  }
}

async function textOf(response: Response): Promise<string> {
  if (!response.ok) throw await problemOf(response);
  return response.text();
}

/** The number of stored fixes. */
async function storedOf(response: Response): Promise<number> {
  if (response.status === NONE_STORED) {
    await response.body?.cancel();
    return 0;
  }
  if (!response.ok) throw await problemOf(response);
  return ((await response.json()) as { stored: number }).stored;
}

async function problemOf(response: Response): Promise<Error> {
  await response.body?.cancel();
  const problem = `${new URL(response.url).pathname}: ${response.status} ${response.statusText}`;
  const delayS = Number(response.headers.get("retry-after"));
  return delayS > 0 ? new RetryLaterError(problem, Math.min(delayS, MAX_RETRY_AFTER_S)) : new Error(problem);
}
