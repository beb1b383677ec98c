// Images that come in: dropped, pasted or picked. Those that carry their settings restore them, any
// other is worked on.
import { signal, toast, announce } from "./ui.js";
import { api } from "./api.js";
import { limits, modelNamed, capabilities } from "./server.js";
import { setSource, takeRequest, source, form } from "./settings.js";

const TYPES = new Set(["image/png", "image/jpeg", "image/webp"]);
/** Whether an image is being looked at. */
export const reading = signal(false);
/** Whether something hangs over the page that could be dropped. */
export const dragging = signal(false);

/** The pixels of a file, upright; raises with what is wrong. */
export async function opened(blob, name = "image", recipe = null) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Error(`${name} cannot be read as an image. PNG, JPEG and WebP are taken.`);
  }
  const { width, height } = bitmap;
  bitmap.close();
  return { blob, name, width, height, recipe, url: URL.createObjectURL(blob) };
}

function faultOf(file) {
  const most = limits().uploadBytes;
  if (!TYPES.has(file.type)) return `${file.name || "This"} is no PNG, JPEG or WebP image.`;
  if (file.size > most) return `${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; at most ${Math.round(most / 2 ** 20)} MB are taken.`;
  return null;
}

/** Take a file in. */
export async function takeFile(file, { mayRestore = true } = {}) {
  const fault = faultOf(file);
  if (fault !== null) { toast(fault, { kind: "failure" }); return; }
  reading.set(true);
  try {
    const image = await opened(file, file.name || "pasted image");
    if (image.width * image.height > limits().uploadPixels) {
      throw new Error(`${image.name} has ${(image.width * image.height / 1e6).toFixed(1)} megapixels; at most ${limits().uploadPixels / 1e6} are taken.`);
    }
    const found = mayRestore ? await readRecipe(file) : null;
    if (found?.request) restored(found, image);
    else work(image);
  } catch (error) {
    toast(error.message, { kind: "failure", seconds: 12 });
  } finally {
    reading.set(false);
  }
}

async function readRecipe(file) {
  try {
    return await api.recipe(file);
  } catch (failure) {
    if (failure.kind === "refused") throw failure;
    return null; // without a server it is still an image to work on
  }
}

function work(image) {
  setSource(image, { as: "image_to_image" });
  announce(`${image.name} is the source, ${image.width} by ${image.height} pixels.`);
}

function restored({ request, ignored = [] }, image) {
  const before = form.value;
  const edits = takeRequest(request);
  const wants = request.model && modelNamed(request.model)?.name !== request.model && capabilities.value !== null;
  const notes = [];
  if (wants) notes.push(`the model ${request.model} is not here`);
  if (ignored.length > 0) notes.push(`not taken over: ${ignored.join(", ")}`);
  if (edits) notes.push("it was an edit: bring its source, too");
  if (edits) setSource(null);
  toast(`Settings restored${notes.length ? `; ${notes.join("; ")}` : ""}.`, {
    seconds: 12, action: { label: "Work on the image", run: () => { form.set(before); work(image); } },
  });
}

/** Ask for a file with the browser's own window. */
export function pickFile(options) {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = [...TYPES].join(",");
  input.onchange = () => { if (input.files[0]) takeFile(input.files[0], options); };
  input.click();
}

const fileIn = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? transfer?.files?.[0];

/** Listen for drops and pastes anywhere on the page. */
export function listenForFiles() {
  let depth = 0;
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => { if (carries(event)) { depth += 1; dragging.set(true); } });
  addEventListener("dragleave", (event) => {
    if (carries(event)) { depth = Math.max(0, depth - 1); if (depth === 0) dragging.set(false); }
  });
  addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    depth = 0;
    dragging.set(false);
    const file = fileIn(event.dataTransfer);
    if (!carries(event)) return;
    event.preventDefault();
    if (file) takeFile(file);
  });
  addEventListener("paste", (event) => {
    const file = fileIn(event.clipboardData);
    if (file) { event.preventDefault(); takeFile(file); }
  });
}

/** Work on an image of the library. */
export async function takeImage(image, as) {
  try {
    const blob = await api.file(image.id);
    setSource(await opened(blob, image.prompt || "image"), { as });
    form.patch({ prompt: image.prompt ?? form.value.prompt });
    return source.value;
  } catch (error) {
    toast(`The image could not be opened: ${error.message}.`, { kind: "failure" });
    return null;
  }
}
