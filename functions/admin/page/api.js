// Owns calls to the API. What comes back is an answer or a Failure; a session that has ended is told to whoever asked.

const ROOT = new URL("../", document.baseURI);
const LONGEST_MS = 20_000;

export class Failure extends Error {
  constructor(message, status, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

let whenEnded = () => {};
export const onSessionEnd = (callback) => (whenEnded = callback);

async function send(method, path, body, headers) {
  try {
    return await fetch(new URL(path, ROOT), {
      method,
      headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(LONGEST_MS),
      cache: "no-store",
    });
  } catch (cause) {
    const why = cause.name === "TimeoutError" ? "it didn’t answer in time" : "it can’t be reached";
    throw new Failure(why, 0, undefined);
  }
}

// What a proxy answers in our place may be anything.
async function read(response) {
  try {
    return await response.json();
  } catch {
    return undefined;
  }
}

async function refuse(response) {
  const body = await read(response);
  const failure = new Failure(body?.error ?? `it answered ${response.status}`, response.status, body);
  failure.retryAfter = response.headers.get("retry-after");
  return failure;
}

export async function call(method, path, body, headers = {}) {
  const response = await send(method, path, body, headers);
  if (response.status === 401) whenEnded();
  if (response.status === 304) return { unchanged: true };
  if (!response.ok) throw await refuse(response);
  const answer = await read(response);
  if (answer === undefined) throw new Failure("it answered something else than JSON", response.status);
  return { answer, etag: response.headers.get("etag") };
}

export const get = async (path) => (await call("GET", path)).answer;
export const post = async (path, body) => (await call("POST", path, body)).answer;

// A token is wrong, or a session is over: not the same.
export async function signIn(token) {
  const response = await send("POST", "admin/login", { token }, {});
  if (!response.ok) throw await refuse(response);
  return read(response);
}

export const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value);
  return given.length > 0 ? `?${new URLSearchParams(given)}` : "";
};
