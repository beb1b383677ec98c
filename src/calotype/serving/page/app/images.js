// The images that are kept: pages by cursor, search, favourites, delete with undo.
import { signal, toast, announce, plural } from "./ui.js";
import { api } from "./api.js";
import { finished } from "./jobs.js";

const PAGE = 100;
const EMPTY = { images: [], next: null, state: "loading", error: null };

export const library = signal(EMPTY);
export const filter = signal({ search: "", favourite: false });
/** Ids that were deleted and may still come back. */
export const deleted = signal(new Set());
/** Favourites that were changed here, by id, wherever an image is shown. */
export const favourites = signal(new Map());

let round = 0; // answers to an older search are late, and not shown
let abort = null;
let loadingMore = null;
let missed = false; // an image came while the first page was on its way

/** Load the first page anew. */
export async function reload() {
  const mine = ++round;
  abort?.abort();
  abort = new AbortController();
  loadingMore = null;
  missed = false;
  library.patch({ state: library.value.images.length ? "refreshing" : "loading", error: null });
  try {
    const { images, next } = await api.images({ ...filter.value, limit: PAGE, signal: abort.signal });
    if (mine !== round) return;
    library.set({ images, next, state: "ready", error: null });
    if (missed) refresh();
  } catch (error) {
    if (mine === round && error.name !== "AbortError") library.patch({ state: "failed", error: error.message });
  }
}

/** Load the page behind; calls while one is on its way are one call. */
export function loadMore() {
  const { next, state } = library.value;
  if (next === null || (state !== "ready" && state !== "failed")) return loadingMore ?? Promise.resolve();
  if (loadingMore !== null) return loadingMore;
  const mine = round;
  loadingMore = api.images({ ...filter.value, cursor: next, limit: PAGE }).then(
    (more) => {
      if (mine !== round) return;
      const known = new Set(library.value.images.map((one) => one.id));
      library.set((now) => ({
        images: [...now.images, ...more.images.filter((one) => !known.has(one.id))], next: more.next, state: "ready", error: null,
      }));
    },
    (error) => { if (mine === round) library.patch({ state: "failed", error: error.message }); },
  ).finally(() => { if (mine === round) loadingMore = null; });
  return loadingMore;
}

/** Search for other images. */
export function lookFor(part) {
  filter.patch(part);
  library.set(EMPTY);
  reload();
}

/** New images stand at the front; what was scrolled to stays. */
async function refresh() {
  missed = library.value.state !== "ready";
  if (missed) return;
  const mine = round;
  try {
    const { images } = await api.images({ ...filter.value, limit: PAGE });
    if (mine !== round) return;
    const known = new Set(library.value.images.map((one) => one.id));
    const fresh = images.filter((one) => !known.has(one.id));
    if (fresh.length === PAGE) reload();
    else if (fresh.length > 0) library.patch({ images: [...fresh, ...library.value.images] });
  } catch { /* the next image tries again */ }
}

let timer = null;
finished.subscribe(() => { clearTimeout(timer); timer = setTimeout(refresh, 400); });

// ---- What is done to images.

export const isFavourite = (image) => favourites.value.get(image.id) ?? image.favourite ?? false;

function keepFavourite(id, value) {
  favourites.set((all) => new Map(all).set(id, value));
}

export async function setFavourite(images, value) {
  for (const image of images) keepFavourite(image.id, value);
  announce(value ? `${plural(images.length, "favourite")} added.` : "No favourite any more.");
  const failed = [];
  await Promise.all(images.map((image) => api.favourite(image.id, value).catch(() => failed.push(image))));
  for (const image of failed) keepFavourite(image.id, !value);
  if (failed.length) toast("The favourite could not be kept: the server did not take it.", { kind: "failure" });
}

/** Delete, with a minute to undo it. */
export async function remove(images) {
  const ids = images.map((one) => one.id);
  deleted.set((all) => new Set([...all, ...ids]));
  const back = (some) => deleted.set((all) => new Set([...all].filter((id) => !some.includes(id))));
  const failed = [];
  await Promise.all(ids.map((id) => api.remove(id).catch((error) => error.status === 404 || failed.push(id))));
  if (failed.length) {
    back(failed);
    toast(`${plural(failed.length, "image")} could not be deleted; the server did not take it.`, { kind: "failure" });
  }
  const gone = ids.filter((id) => !failed.includes(id));
  if (gone.length === 0) return;
  toast(`${plural(gone.length, "image")} deleted.`, {
    seconds: 55, action: { label: "Undo", run: () => restore(gone, back) },
  });
}

async function restore(ids, back) {
  const lost = [];
  await Promise.all(ids.map((id) => api.restore(id).catch(() => lost.push(id))));
  back(ids.filter((id) => !lost.includes(id)));
  if (lost.length) toast("It is too late: the image has been removed.", { kind: "failure" });
  else announce(`${plural(ids.length, "image")} restored.`);
}

export const present = (images, gone = deleted.value) => (
  gone.size === 0 ? images : images.filter((one) => !gone.has(one.id)));
