// One image of a job: its place, its preview as it grows, and the finished image over it.
import { html, useState, useSignal } from "./ui.js";
import { isFavourite, favourites, setFavourite, deleted } from "./images.js";
import { Button } from "./controls.js";
import { Icon } from "./icons.js";
import { cancel, isActive } from "./jobs.js";

/** How far an image is, from 0 to 1; null = it waits. */
export const progressOf = (image) => (
  image.state === "done" ? 1 : image.calls ? Math.min(1, image.done / image.calls) : image.state === "running" ? image.progress ?? 0 : null);

/** An image that fades in once it is there; `onGone` where the server has it no more. */
export function Arriving({ src, alt, onGone, className = "", eager = false }) {
  const [there, setThere] = useState(null); // which source has arrived: it may do so before any effect runs
  return html`<img class=${`${className} ${there === src ? "there" : "coming"}`} src=${src} alt=${alt} decoding="async"
    loading=${eager ? "eager" : "lazy"} onLoad=${() => setThere(src)} onError=${onGone} />`;
}

function Ring({ value }) {
  const length = 2 * Math.PI * 15;
  return html`<svg class=${`ring ${value === null ? "waits" : ""}`} viewBox="0 0 36 36" aria-hidden="true">
    <circle cx="18" cy="18" r="15" /><circle class="done" cx="18" cy="18" r="15"
      stroke-dasharray=${length} stroke-dashoffset=${length * (1 - (value ?? 0.08))} /></svg>`;
}

/** The picture part alone: preview below, image above. */
export function Pixels({ image, caption, onGone }) {
  const { preview, thumbnail, url, width } = image;
  const source = width && width <= 512 ? url : thumbnail;
  return html`<span class="pixels">
    ${preview && html`<img class="preview" src=${preview} alt="" />`}
    ${image.state === "done" && html`<${Arriving} src=${source ?? url} alt=${caption || "An image without a caption"} onGone=${onGone} eager />`}
  </span>`;
}

/**
 * A tile of a job. `over` is the finishing job's image, which takes the draft's place; `chosen` and
 * `onChoose` make it one of the drafts to choose from.
 */
export function Tile({ job, image, over = null, caption, number, onOpen, chosen, onChoose }) {
  const [gone, setGone] = useState(false);
  useSignal(favourites);
  const removed = useSignal(deleted);
  const now = over?.image ?? image;
  const owner = over?.job ?? job;
  const ready = now.state === "done" && !gone;
  // A draft stays until what comes in its place shows more than it does.
  const shown = over !== null && now.state !== "done" && (now.previewSide ?? 0) <= (image.width ?? 0) ? image : now;
  if (removed.has(now.id)) return html`<li class="tile gone"><span>Deleted</span></li>`;
  const choosable = onChoose !== undefined && image.state === "done" && over === null;
  const name = `${number ? `Image ${number}` : "Image"}${ready ? "" : `, ${stateWords(now, owner)}`}`;
  return html`<li class=${`tile ${chosen ? "chosen" : ""} ${ready ? "ready" : ""}`}
      style=${{ aspectRatio: ratio(job, image) }}>
    ${ready || choosable
      ? html`<button type="button" class="open" onClick=${choosable ? onChoose : onOpen}
          aria-pressed=${choosable ? chosen : undefined} aria-label=${choosable ? `Choose draft ${number}` : `Open ${name.toLowerCase()}`}>
          <${Pixels} image=${shown} caption=${caption} onGone=${() => setGone(true)} /></button>`
      : html`<div class="open waiting" role="img" aria-label=${name}><${Pixels} image=${shown} caption=${caption} onGone=${() => setGone(true)} /></div>`}
    ${choosable && html`<span class="tick-mark" aria-hidden="true">${chosen && html`<${Icon} name="check" />`}</span>`}
    ${!ready && isActive(owner) && html`<${Ring} value=${progressOf(now)} />`}
    ${over !== null && isActive(owner) && html`<${Button} kind="over stop" icon="close" label=${`Do not finish image ${number}`} onClick=${() => cancel(owner)} />`}
    ${now.state === "failed" && html`<span class="badge bad"><${Icon} name="warn" />failed</span>`}
    ${over !== null && ready && html`<span class="badge">${now.width}²</span>`}
    ${choosable && html`<${Button} kind="over look" icon="grow" label=${`Look at draft ${number}`} onClick=${onOpen} />`}
    ${ready && !choosable && html`<${Button} kind=${`over heart ${isFavourite(now) ? "on" : ""}`} icon="heart" filled=${isFavourite(now)} pressed=${isFavourite(now)}
      label=${`Favourite, image ${number ?? 1}`} onClick=${() => setFavourite([now], !isFavourite(now))} />`}
    ${gone && html`<span class="badge">no longer kept</span>`}
  </li>`;
}

const stateWords = (image, job) => {
  if (image.state === "failed" || job.state === "failed" || job.state === "refused") return "failed";
  if (job.state === "cancelled") return "cancelled";
  const value = progressOf(image);
  return value === null ? "waiting" : `${Math.round(value * 100)} percent done`;
};

const ratio = (job, image) => {
  const [width, height] = image.width ? [image.width, image.height] : job.request.size ?? [1, 1];
  return `${width} / ${height}`;
};
