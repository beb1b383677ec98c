// The command that makes an image again.
import { bare, seedText } from "./settings.js";
import { modelNamed } from "./server.js";

/** A word as shells of POSIX read it. */
export function quoted(text) {
  if (/^[\w.,:/=-]+$/.test(text) && !text.startsWith("-")) return text;
  if (/^[\w .,:;()?=+/-]*$/.test(text)) return `"${text}"`;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

const listed = (value) => (Array.isArray(value) ? value.join("/") : value === null ? "none" : String(value));

/** `calotype sample "..." --seed ...`, or edit, or upscale. */
export function commandOf(request, image) {
  const asked = bare(request);
  const model = modelNamed(asked.model ?? null);
  const edits = { image_to_image: "edit", inpaint: "edit", vary: "edit", upscale: "upscale" };
  const words = ["calotype", edits[asked.kind] ?? "sample"];
  if (edits[asked.kind]) words.push("SOURCE.png");
  const caption = asked.prompt ?? "";
  if (caption.startsWith("-")) words.push("--", quoted(caption)); // options stand before it, below
  else words.push(quoted(caption));
  const options = [];
  const option = (name, value) => { if (value !== undefined && value !== null) options.push(name, quoted(String(value))); };
  option("--seed", seedText(image) ?? seedText(request));
  if (asked.model !== undefined && asked.model !== "default") option("--model", asked.model);
  if (words[1] === "sample") {
    const [width, height] = asked.size ?? [image?.width, image?.height];
    const square = width === height && model?.stages.some((stage) => stage.resolution === width);
    if (width) option("--size", square ? width : `${width}x${height}`);
  }
  if (asked.kind === "upscale" && asked.size) option("--size", Math.max(...asked.size));
  option("--negative", asked.negative_prompt);
  option("--class", asked.class);
  option("--steps", asked.steps);
  option("--sampler", asked.sampler);
  option("--guidance", asked.guidance);
  option("--variety", asked.variety);
  option("--strength", asked.strength);
  option("--vary", asked.vary);
  if (asked.kind === "inpaint") {
    option("--mask", "MASK.png");
    if (asked.invert_mask) options.push("--invert-mask");
    if (asked.crop === false) option("--crop", "off");
  }
  for (const [resolution, settings] of Object.entries(asked.stages ?? {})) {
    const text = Object.entries(settings).map(([name, value]) => `${name}=${listed(value)}`).join(",");
    option("--stage-option", `${resolution}:${text}`);
  }
  if (caption.startsWith("-")) words.splice(2, 0, ...options);
  else words.push(...options);
  return words.join(" ");
}

