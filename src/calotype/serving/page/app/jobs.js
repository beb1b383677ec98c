// Jobs of this page: what was asked for, how far it is, and what came of it.
import { signal, remembered, announce, toast, plural, duration, reducedMotion } from "./ui.js";
import { api, freshKey } from "./api.js";
import { requestOf, draftsOf, finishOf, bare, seedText, source, mask, lastSeed, form, formFault } from "./settings.js";
import { follow } from "./streams.js";
import { keepFiles, keptFiles, forgetFiles } from "./kept.js";

/** Newest first: {id, key, state, request, images, position, eta, began, done, calls, error, ...}. */
export const jobs = signal([]);
/** "loading" until the server has told which jobs there are, then "ready". */
export const jobsState = signal("loading");
/** Counts finished images, so that the library looks again. */
export const finished = signal(0);

const SHOWN = 40; // of those that have ended: older ones are in the library
const dismissed = remembered("dismissed", []); // ids
const files = new Map(); // key of a job -> {source, mask} of this tab
const ACTIVE = new Set(["sending", "held", "queued", "running"]);

export const isActive = (job) => ACTIVE.has(job.state);
export const activeJobs = (all = jobs.value) => all.filter(isActive);
const change = (key, part) => jobs.set((all) => all.map((job) => (
  job.key === key ? { ...job, ...(typeof part === "function" ? part(job) : part) } : job)));
const withKey = (key) => jobs.value.find((job) => job.key === key);

// ---- From the server's words to ours.

function imageOf(sent, before = {}) {
  return {
    ...before, ...sent, seed: seedText(sent) ?? before.seed,
    thumbnail: sent.thumbnail ?? before.thumbnail, url: sent.url ?? before.url,
  };
}

function taken(sent, before = {}) {
  const images = (sent.images ?? []).map((one, index) => imageOf(one, before.images?.[index]));
  return {
    ...before, id: sent.id, key: before.key ?? sent.id, state: sent.state, request: sent.request ?? before.request,
    position: sent.position ?? null, eta: sent.eta_seconds ?? null, error: errorOf(sent),
    warning: sent.warning ?? null, images, began: before.began ?? null, told: Date.now(),
  };
}

const wordsOf = (error) => (typeof error === "object" && error !== null ? error.message ?? null : error ?? null);
const errorOf = (sent) => wordsOf(sent.error ?? (sent.images ?? []).map((image) => image.error).find(Boolean));

/** Find the jobs that are there, of this tab or of one that was closed. */
export async function findJobs() {
  let sent;
  try {
    sent = await api.jobs();
  } catch {
    return;
  }
  const mine = new Map(jobs.value.filter((job) => job.id).map((job) => [job.id, job]));
  const unsent = jobs.value.filter((job) => !job.id);
  const known = sent.map((one) => {
    const before = mine.get(one.id);
    return before !== undefined && !isActive(before) ? before : taken(one, before);
  });
  const gone = new Set(dismissed.value);
  const ended = known.filter((job) => !isActive(job) && !gone.has(job.id)).slice(0, SHOWN);
  jobs.set([...unsent, ...known.filter((job) => isActive(job) || ended.includes(job))]);
  jobsState.set("ready");
}

// ---- Events of one job.

export function happened(key, kind, data) {
  const job = withKey(key);
  if (job === undefined) return;
  if (kind === "queued" && job.state !== "running") change(key, { state: "queued", position: data.position, eta: data.eta_seconds, told: Date.now() });
  else if (kind === "started") change(key, { state: "running", position: null, began: job.began ?? Date.now() });
  else if (kind === "step" || kind === "preview") moved(key, job, kind, data);
  else if (kind === "image") imageCame(key, data);
  else if (kind === "done") ended(key, "done");
  else if (kind === "cancelled") ended(key, "cancelled");
  else if (kind === "failed" && data.kind === "shutdown") change(key, { state: "queued", position: null, eta: null }); // it goes on after a restart
  else if (kind === "failed") imageFailed(key, data);
}

function moved(key, job, kind, data) {
  const image = job.images[data.image] ?? {};
  const part = kind === "preview"
    ? { preview: data.src, previewSide: Math.max(data.width, data.height) }
    : { done: data.done, calls: data.calls, stage: data.resolution };
  const images = job.images.map((one, index) => (
    index === data.image ? { ...image, ...part, state: "running" } : one));
  change(key, { images, state: "running", position: null, began: job.began ?? Date.now() });
}

function imageCame(key, data) {
  change(key, (job) => ({
    images: job.images.map((one, index) => (
      index === data.image ? { ...imageOf(data, one), state: "done" } : one)),
  }));
  finished.set((count) => count + 1);
}

function imageFailed(key, data) {
  if (data.image !== undefined && data.image !== null) {
    const images = withKey(key).images.map((one, index) => (
      index === data.image ? { ...one, state: "failed", error: data.message } : one));
    change(key, { images, error: data.message });
    if (images.some((one) => ["queued", "running"].includes(one.state))) return;
  }
  ended(key, "failed", data.message);
}

function ended(key, state, error = null) {
  const job = withKey(key);
  if (job === undefined || !isActive(job)) return;
  const took = job.began === null ? null : (Date.now() - job.began) / 1000;
  change(key, { state, error: error ?? job.error, position: null, took });
  const count = job.images.filter((one) => one.state === "done").length;
  if (state !== "done") recount(key, job.id);
  if (state === "done") announce(`${plural(count, "image")} ready: ${job.request.prompt || "no caption"}`);
  else if (state === "failed") announce(`Failed: ${error}. Retry is beside it.`, { urgent: true });
}

/** Of a job that ended early: which of its images there are after all. */
async function recount(key, id) {
  try {
    const { images } = await api.job(id);
    change(key, (now) => ({ images: images.map((one, index) => imageOf(one, now.images[index])) }));
  } catch { /* then it stays as it is known */ }
}

/** What a poll says of a job that no stream follows. */
export function told(sent) {
  const job = jobs.value.find((one) => one.id === sent.id);
  if (job === undefined || !isActive(job)) return;
  const fresh = taken({ images: job.images, ...sent }, job);
  const arrived = fresh.images.filter((one, index) => one.state === "done" && job.images[index]?.state !== "done");
  if (fresh.state === "running" && job.began === null) fresh.began = Date.now();
  const end = isActive(fresh) ? null : fresh.state;
  change(job.key, { ...fresh, state: end === null ? fresh.state : job.state });
  if (arrived.length) finished.set((count) => count + arrived.length);
  if (end !== null) ended(job.key, end, fresh.error);
}

// ---- Asking.

/** Send a request and bring its job into sight. */
export function submit(request, attached = null) {
  showNewest();
  return ask(request, attached);
}

/** Send a request; it is shown at once, and kept and sent again where the server cannot take it. */
async function ask(request, attached = null) {
  const key = freshKey();
  files.set(key, attached);
  const images = Array.from({ length: request.n ?? 1 }, (_, index) => ({ index, state: "queued", seed: null }));
  const local = attached === null ? null : attached.url ?? null;
  jobs.set((all) => [{ key, id: null, state: "sending", request, images, sourceUrl: local, position: null, eta: null, began: null }, ...all]);
  await send(key);
  return withKey(key);
}

async function send(key) {
  const job = withKey(key);
  if (job === undefined) return;
  clearTimeout(job.timer);
  change(key, { state: "sending", error: null, timer: null });
  const attached = files.get(key);
  try {
    const sent = await api.start(job.request, { key, source: attached?.source ?? null, mask: attached?.mask ?? null });
    if (withKey(key) === undefined) { api.cancel(sent.id).catch(() => {}); return; } // discarded meanwhile
    change(key, (now) => ({ ...taken(sent, now), key }));
    if (attached) keepFiles(sent.id, attached);
    const seed = seedText(sent.images?.[0] ?? {}) ?? seedText(sent.request ?? {});
    if (seed !== null) lastSeed.set(seed);
    const { position, eta } = withKey(key);
    if (sent.warning) announce(`It may not be finished: ${sent.warning}.`, { urgent: true });
    else announce(position ? `Waiting, number ${position + 1} in line, about ${duration(eta ?? 1)}.` : "Started.");
    follow();
  } catch (failure) {
    if (failure.passes) hold(key, failure);
    else {
      change(key, { state: "refused", error: failure.message, param: failure.param });
      announce(`Not accepted: ${failure.message}`, { urgent: true });
    }
  }
}

function hold(key, failure) {
  const seconds = Math.min(failure.retryAfter ?? 3, 120);
  const timer = setTimeout(() => send(key), seconds * 1000);
  const first = withKey(key)?.held !== failure.kind;
  change(key, { state: "held", held: failure.kind, error: failure.message, until: Date.now() + seconds * 1000, timer });
  if (first) announce(failure.kind === "full" ? "The queue is full. It is sent when there is room." : "It is sent when the server is back.", { urgent: true });
}

export const sendNow = (job) => send(job.key);

/** Bring the newest job into sight: it stands first. */
function showNewest() {
  requestAnimationFrame(() => {
    const feed = document.querySelector(".feed");
    const head = document.querySelector(".masthead")?.offsetHeight ?? 0;
    if (feed === null) return;
    const top = feed.getBoundingClientRect().top + scrollY - head - 20;
    scrollTo({ top: Math.max(0, top), behavior: reducedMotion() ? "auto" : "smooth" });
  });
}

/** Whether the form can be sent; where not, it says why. */
function fits(...origin) {
  const fault = formFault(form.value, ...origin);
  if (fault !== null) toast(fault, { kind: "failure" });
  return fault === null;
}

/** What the form asks for. */
export function generate() {
  if (!fits()) return null;
  const { value: origin } = source;
  if (origin === null) return submit(requestOf());
  if (requestOf().kind === "inpaint" && mask.value === null) {
    toast("Paint first what is to be filled: press “Paint the part”.", { kind: "failure" });
    return null;
  }
  const painted = requestOf().kind === "inpaint" ? mask.value.blob : null;
  return submit(requestOf(), { source: origin.blob, mask: painted });
}

export function draft() {
  if (!fits(null)) return null;
  return submit(draftsOf(form.value));
}

/** Finish a draft by its seed, in its place. */
export const finish = (job, image) => ask(finishOf(job.request, image.seed));

/** Stop a job; one that was never sent goes away. */
export async function cancel(job) {
  if (job.id === null) {
    clearTimeout(job.timer);
    jobs.set((all) => all.filter((one) => one.key !== job.key));
    announce("Discarded.");
    return;
  }
  change(job.key, { stopping: true });
  try {
    const sent = await api.cancel(job.id);
    if (isActive(sent)) return; // its last event is still to come
    ended(job.key, sent.state);
    announce("Cancelled.");
  } catch (failure) {
    change(job.key, { stopping: false });
    toast(`It could not be cancelled: ${failure.message}.`, { kind: "failure" });
  }
}

const needsSource = ({ kind }) => kind !== undefined && kind !== "sample";

/** The {source, mask} that a job was sent with, or null: of this tab, or kept by this browser. */
export async function filesOf(job) {
  const attached = files.get(job.key) ?? null;
  return attached === null && job.id !== null && needsSource(job.request) ? keptFiles(job.id) : attached;
}

/** Ask for the same once more, with the same seeds where they are known; false where its source is lost. */
export async function retry(job) {
  const request = { ...bare(job.request) };
  const seed = job.images[0]?.seed ?? null;
  if (seed !== null) Object.assign(request, bare({ ...request, seed_text: seed }));
  const attached = await filesOf(job);
  if (needsSource(request) && attached === null) return false;
  dismiss(job);
  submit(request, attached);
  return true;
}

/** Take an ended job off the page; its images stay in the library. */
export function dismiss(job) {
  if (job.id !== null) {
    dismissed.set((ids) => [job.id, ...ids].slice(0, 500));
    forgetFiles(job.id);
  }
  files.delete(job.key);
  jobs.set((all) => all.filter((one) => one.key !== job.key));
}
