// What can be done with one image, wherever it is shown.
import { toast, announce } from "./ui.js";
import { api } from "./api.js";
import { takeRequest, bare, seedText, form, enlarged, growsBy, draftsOf, varied, setSource, classField } from "./settings.js";
import { modelNamed } from "./server.js";
import { submit } from "./jobs.js";
import { commandOf } from "./command.js";
import { takeImage, opened } from "./intake.js";
import { keptFiles } from "./kept.js";
import { editor, go, viewer } from "./places.js";

const explained = (what) => (error) => { toast(`${what}: ${error.message}.`, { kind: "failure" }); return null; };

/** The request that makes an image again: of its job, of the server, or read from its file. */
export async function requestFor(image) {
  if (image.request) return { ...image.request, ...seedOf(image) };
  const told = await api.image(image.id);
  if (told?.request) return { ...told.request, ...seedOf(image) };
  const { request } = await api.recipe(await api.file(image.id));
  return { prompt: image.prompt, size: [image.width, image.height], ...request, ...seedOf(image) };
}

const seedOf = (image) => (seedText(image) === null ? {} : { seed: undefined, seed_text: seedText(image) });

/** The class that an image shows, as a request of a kind names it. */
async function classOf(image, kind) {
  if (!modelNamed(image.model ?? null)?.classes?.length) return {};
  const { class: name } = await requestFor(image).catch(() => ({}));
  return classField({ model: image.model, class: name }, kind);
}

/** All settings of an image, its seed too, back in the form. */
export async function reuse(image) {
  const request = await requestFor(image).catch(explained("Its settings could not be read"));
  if (request === null) return;
  const edits = takeRequest({ ...request, n: 1 });
  const files = edits && image.job ? await keptFiles(image.job) : null;
  if (!edits || files !== null) setSource(files && await opened(files.source, "Source of before"));
  viewer.set(null);
  go("create");
  toast(edits && files === null ? "Settings restored; it was an edit: bring its source, too." : "Settings restored, the seed is locked.");
}

/** Its seed alone. */
export function reuseSeed(image) {
  form.patch({ seed: seedText(image) ?? "", locked: true });
  toast(`Seed ${seedText(image)} is locked.`);
}

export async function copyCommand(image) {
  const request = await requestFor(image).catch(explained("Its settings could not be read"));
  if (request === null) return;
  await copy(commandOf(request, image), "The command is copied.");
}

/** Copy a text; where the page may not, show it to be copied by hand. */
export async function copy(text, words) {
  try {
    await navigator.clipboard.writeText(text);
    toast(words);
  } catch {
    prompt("Copy it from here:", text);
  }
}

export function download(image) {
  save(`${image.url ?? api.fileUrl(image.id)}${(image.url ?? "").includes("?") ? "&" : "?"}download=1`, "");
}

export async function downloadZip(images) {
  const done = toast(`Packing ${images.length} images …`, { seconds: 0 });
  const blob = await api.zip(images.map((one) => one.id)).catch(explained("They could not be packed"));
  done();
  if (blob === null) return;
  const url = URL.createObjectURL(blob);
  save(url, `calotype-${images.length}-images.zip`);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  announce("Downloaded.");
}

function save(href, name) {
  const link = document.createElement("a");
  link.href = href;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}

/** Begin from an image of the library: change, fill, vary or enlarge it in the form. */
export async function workOn(image, as) {
  const origin = await takeImage(image, as);
  if (origin === null) return;
  form.patch({ class: null, ...await classOf(image, as) });
  viewer.set(null);
  go("create");
  if (as === "inpaint") editor.set(true);
}

async function fromFile(image, request, words) {
  const blob = await api.file(image.id).catch(explained("The image could not be opened"));
  if (blob === null) return;
  const named = await classOf(image, request.kind);
  viewer.set(null);
  go("create");
  toast(words);
  submit({ ...request, ...named }, { source: blob, mask: null, url: image.thumbnail });
}

export function enlarge(image) {
  const size = enlarged(image, modelNamed(image.model));
  return fromFile(image, { kind: "upscale", prompt: image.prompt ?? "", n: 1, size, ...named(image) }, "Enlarging.");
}

export const canEnlarge = (image) => growsBy(image, modelNamed(image.model));

/** Four others of the same: the same small version in other strokes. */
export const vary = (image) => fromFile(
  image, { kind: "vary", prompt: image.prompt ?? "", n: 4, vary: form.value.vary, ...named(image) }, "Four variations.");

const named = (image) => (image.model && image.model !== "default" ? { model: image.model } : {});

/** Nine small images of the same caption by other seeds. */
export async function moreLike(image) {
  const request = await requestFor(image).catch(explained("Its settings could not be read"));
  if (request === null) return;
  const { seed, seed_text, kind, strength, vary: _, ...rest } = bare(request);
  const { size } = draftsOf({ ...form.value, size: [image.width, image.height] });
  viewer.set(null);
  go("create");
  submit(varied({ ...rest, kind: "sample", n: 9, size }));
}
