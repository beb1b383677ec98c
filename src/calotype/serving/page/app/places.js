// Where one is on the page: the view, and what is open over it.
import { signal } from "./ui.js";

const VIEWS = new Set(["create", "library"]);
const fromAddress = () => (VIEWS.has(location.hash.slice(1)) ? location.hash.slice(1) : "create");

export const view = signal(fromAddress());
/** What the viewer shows: {list: () => images, id, more}, or null. */
export const viewer = signal(null);
/** Two images side by side: {a, b, choices}, or null. */
export const comparing = signal(null);
/** Whether the editor of the mask is open. */
export const editor = signal(false);
/** Ids of the library's images that are chosen, or null where one is not choosing. */
export const chosen = signal(null);
/** Whether the list of keys is open. */
export const help = signal(false);

addEventListener("hashchange", () => view.set(fromAddress()));

/** Go to a view; the browser's Back returns. */
export function go(name) {
  if (view.value !== name) location.hash = name;
  view.set(name);
}
