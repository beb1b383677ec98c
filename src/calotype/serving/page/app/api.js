// Talks to the native API. Seeds beyond 2^53 stay text, so that none is rounded.

const BASE = "api/v1/";
const PREVIEW_SIDE = 384; // pixels, at most

/** What went wrong, with what to do next: `kind` is offline, login, full, stopping, refused or failed. */
export class ApiFailure extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }

  get kind() {
    if (this.status === 0) return "offline";
    if (this.status === 401) return "login";
    if (this.status === 429) return "full";
    if (this.status === 503) return "stopping";
    return this.status < 500 ? "refused" : "failed";
  }

  /** Whether the same request may succeed later. */
  get passes() { return ["offline", "full", "stopping"].includes(this.kind); }
}

const waitingForKey = [];
let askForKey = null;

/** Call `ask` whenever the server wants a key; it resolves once somebody has logged in. */
export function onLogin(ask) { askForKey = ask; }

async function failureOf(response) {
  let error = {};
  try { error = (await response.json()).error ?? {}; } catch { /* no JSON: a proxy's page */ }
  const seconds = Number(response.headers.get("retry-after"));
  return new ApiFailure(error.message ?? `the server answered ${response.status}`, {
    status: response.status, code: error.code ?? null, param: error.param ?? null,
    retryAfter: Number.isFinite(seconds) && seconds > 0 ? seconds : null,
  });
}

/** One request; raises ApiFailure. `json` and `form` are bodies. */
async function call(path, { method = "GET", json, form, headers = {}, signal } = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers }, signal };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  } else if (form !== undefined) options.body = form;
  let response;
  try {
    response = await fetch(BASE + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFailure("the server cannot be reached");
  }
  if (response.ok) return response;
  const failure = await failureOf(response);
  if (failure.kind === "login" && askForKey !== null && path !== "login") {
    await loggedIn();
    return call(path, { method, json, form, headers, signal });
  }
  throw failure;
}

/** All requests that need a key wait for one dialog. */
function loggedIn() {
  return new Promise((resolve) => {
    waitingForKey.push(resolve);
    if (waitingForKey.length > 1) return;
    askForKey().then(() => { for (const go of waitingForKey.splice(0)) go(); });
  });
}

const data = async (path, options) => {
  const response = await call(path, options);
  return response.status === 204 ? null : response.json();
};

const query = (values) => new URLSearchParams(
  Object.entries(values).filter(([, value]) => value !== null && value !== "" && value !== false),
);

export const api = {
  capabilities: () => data("capabilities"),
  status: (signal) => data("status", { signal }),
  login: (key) => data("login", { method: "POST", json: { key } }),

  jobs: async () => { const got = await data("jobs"); return Array.isArray(got) ? got : got.jobs; },
  job: (id) => data(`jobs/${id}`),
  cancel: (id) => data(`jobs/${id}`, { method: "DELETE" }),
  /** Ask for a job; `key` makes a repeated call the same job. Files make it multipart. */
  start(request, { key, source = null, mask = null }) {
    const headers = { "Idempotency-Key": key };
    if (source === null) return data("jobs", { method: "POST", json: request, headers });
    const form = new FormData();
    form.append("request", JSON.stringify(request));
    form.append("source", source, "source");
    if (mask !== null) form.append("mask", mask, "mask.png");
    return data("jobs", { method: "POST", form, headers });
  },
  eventsUrl: (id) => `${BASE}jobs/${id}/events?previews=1&side=${PREVIEW_SIDE}`,

  images: ({ cursor = null, limit = 50, search = "", favourite = false, signal }) =>
    data(`images?${query({ cursor, limit, search, favourite: favourite ? 1 : null })}`, { signal }),
  image: (id) => data(`images/${id}`),
  favourite: (id, favourite) => data(`images/${id}`, { method: "PATCH", json: { favourite } }),
  remove: (id) => data(`images/${id}`, { method: "DELETE" }),
  restore: (id) => data(`images/${id}/restore`, { method: "POST", json: {} }),
  zip: async (ids) => (await call("images/zip", { method: "POST", json: { ids } })).blob(),
  file: async (id) => (await call(`images/${id}/file`, { headers: { Accept: "image/*" } })).blob(),
  fileUrl: (id) => `${BASE}images/${id}/file`,
  recipe(file) {
    const form = new FormData();
    form.append("image", file, file.name ?? "image");
    return data("recipe", { method: "POST", form });
  },
};

/** A name nobody else uses; also where the page comes over plain HTTP and has no randomUUID. */
export function freshKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
