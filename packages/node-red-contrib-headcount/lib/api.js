/** Requests to headcount's HTTP API. */

const http = require("node:http");
const https = require("node:https");

const TIMEOUT_MS = 30_000;
const MAX_BODY_BYTES = 32 << 20;

/** An answer that is not 2xx, with the text of its problem document. */
class ApiError extends Error {
  constructor(status, headers, body) {
    const problem = parse(body) ?? {};
    super(problem.title ? `${status} ${problem.title}: ${problem.detail ?? ""}` : `HTTP status ${status}`);
    this.status = status;
    this.body = problem;
    this.retryAfter_s = Number(headers["retry-after"]) || undefined;
  }
}

/**
 * Send a request; resolves with the response, whose body is not read yet.
 *
 * @param {object} server the config node
 * @param {string} path with its query
 * @param {{method?: string, headers?: object, body?: string, timeout_ms?: number}} [options]
 */
function open(server, path, { method = "GET", headers = {}, body, timeout_ms = TIMEOUT_MS } = {}) {
  const url = new URL(path, server.url);
  const send = url.protocol === "https:" ? https.request : http.request;
  return new Promise((resolve, reject) => {
    const request = send(url, { method, headers, ...server.tlsOptions() }, resolve);
    request.setTimeout(timeout_ms, () => request.destroy(new Error(`no answer within ${timeout_ms / 1000} s`)));
    request.on("error", reject);
    request.end(body);
  });
}

/** Read a response to its end as text. */
async function read(response) {
  const parts = [];
  let size = 0;
  for await (const part of response) {
    size += part.length;
    if (size > MAX_BODY_BYTES) throw new Error(`the answer has more than ${MAX_BODY_BYTES >> 20} MiB`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/** Send a request, and return the JSON of its answer. @throws {ApiError} if the status is not 2xx */
async function fetchJson(server, path, options) {
  const response = await open(server, path, options);
  const text = await read(response);
  if (response.statusCode >= 300) throw new ApiError(response.statusCode, response.headers, text);
  return parse(text);
}

/** The header with the token of a config node, if it has one. */
function bearer(server) {
  const token = server.credentials?.token;
  return token ? { authorization: `Bearer ${token}` } : {};
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

module.exports = { ApiError, bearer, fetchJson, open, read };
