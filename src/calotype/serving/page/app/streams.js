// Follows running jobs: the first few by server-sent events, the others by asking now and then.
// A browser opens six connections to one server, for all its tabs: a tab takes two of them, a
// hidden one none.
import { api } from "./api.js";
import { lookSoon } from "./server.js";
import { jobs, happened, told, isActive, findJobs } from "./jobs.js";

const STREAMS = 2;
const POLL_SECONDS = 1.5;
const KINDS = ["queued", "started", "step", "preview", "image", "done", "failed", "cancelled"];
const LAST = new Set(["done", "failed", "cancelled"]);
const open = new Map(); // id of a job -> EventSource

function close(id) {
  open.get(id)?.close();
  open.delete(id);
}

function connect(job) {
  const stream = new EventSource(api.eventsUrl(job.id));
  open.set(job.id, stream);
  for (const kind of KINDS) {
    stream.addEventListener(kind, (event) => {
      const { key } = jobs.value.find((one) => one.id === job.id) ?? {};
      if (key === undefined) { close(job.id); return; }
      let data;
      try { data = JSON.parse(event.data); } catch { return; }
      happened(key, kind, data);
      const now = jobs.value.find((one) => one.id === job.id);
      if (LAST.has(kind) && (now === undefined || !isActive(now))) { close(job.id); follow(); lookSoon(); }
    });
  }
  stream.onerror = () => {
    // The browser connects again by itself, unless the server refused: then the poll finds out.
    if (stream.readyState === EventSource.CLOSED) close(job.id);
  };
}

/** Give the streams to the jobs that are first in line. */
export function follow() {
  const active = jobs.value.filter((job) => job.id && isActive(job)).reverse();
  const runs = (job) => job.state === "running";
  const first = [...active.filter(runs), ...active.filter((job) => !runs(job))];
  const wanted = new Set(document.hidden ? [] : first.slice(0, STREAMS).map((job) => job.id));
  for (const id of [...open.keys()]) if (!wanted.has(id)) close(id);
  for (const job of first) if (wanted.has(job.id) && !open.has(job.id)) connect(job);
}

async function poll() {
  const unfollowed = jobs.value.filter((job) => job.id && isActive(job) && !open.has(job.id));
  if (unfollowed.length > 0) {
    try {
      const sent = new Map((await api.jobs()).map((one) => [one.id, one]));
      for (const { id } of unfollowed) told(sent.get(id) ?? { ...(await known(id)), id });
    } catch { /* the server's state says so */ }
    follow();
  }
  setTimeout(poll, POLL_SECONDS * 1000 * (document.hidden ? 4 : 1));
}

async function known(id) {
  try {
    return await api.job(id);
  } catch (failure) {
    if (failure.status !== 404) throw failure;
    return { state: "failed", error: "the server no longer knows this job" };
  }
}

/** Find the jobs that are there and follow them from now on. */
export async function watchJobs() {
  await findJobs();
  follow();
  poll();
}

document.addEventListener("visibilitychange", follow);
