// Requests to the studio's server. Every failure is an ApiError whose one-line message can be shown.

export class ApiError extends Error {
  /** @param {string} message @param {number} status of the answer; 0 if there was none */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * An address relative to the page, which a forwarder may show under a path of its own.
 * @param {string} path such as "queue"
 * @param {Record<string, any>} [params] null and undefined are left out
 */
export function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params))
    if (value !== null && value !== undefined) query.set(name, String(value));
  const text = query.toString();
  return `api/${path}${text ? `?${text}` : ""}`;
}

/**
 * One request. A Blob or string is sent as it is, anything else as JSON.
 * @param {string} method
 * @param {string} url
 * @param {{body?: any, keepalive?: boolean, signal?: AbortSignal, cache?: RequestCache}} [options]
 * @returns {Promise<Response>} with a status below 400
 */
export async function request(method, url, { body, keepalive = false, signal, cache = "no-store" } = {}) {
  const raw = typeof body === "string" || body instanceof Blob;
  const sent = body === undefined ? {} : { body: raw ? body : JSON.stringify(body) };
  const headers = body !== undefined && !raw ? { "Content-Type": "application/json" } : {};
  let answer;
  try {
    answer = await fetch(url, { method, headers, keepalive, signal, credentials: "same-origin", cache, ...sent });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The studio does not answer. Is it still running?", 0);
  }
  if (answer.ok) return answer;
  throw new ApiError(await reason(answer), answer.status);
}

async function reason(answer) {
  const text = await answer.text().catch(() => "");
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string") return error;
  } catch {
    // not JSON: a refusal without the token, or a proxy's page
  }
  if (answer.status === 401 || answer.status === 403)
    return "This page is locked. Open the full address that the studio printed when it started.";
  return `The studio answered ${answer.status}${text && text.length < 200 && !text.includes("<") ? `: ${text}` : ""}`;
}

const json = async (answer) =>
  (answer.headers.get("Content-Type") ?? "").includes("json") ? answer.json() : answer.text();
const call = async (method, url, options) => json(await request(method, url, options));

/** The requests of all pages. Responses are parsed JSON, or text if the server sends none. */
export const api = {
  get: (path, params, options) => call("GET", address(path, params), options),
  post: (path, body, params, options) => call("POST", address(path, params), { body: body ?? {}, ...options }),
  put: (path, body, params) => call("PUT", address(path, params), { body: body ?? {} }),
  del: (path, params) => call("DELETE", address(path, params)),
};
