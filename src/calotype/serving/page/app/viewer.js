// One image, large: look, browse with arrows, and do something with it.
import { html, useSignal, useEffect, useState, useRef, sizeText } from "./ui.js";
import { viewer, comparing } from "./places.js";
import { isFavourite, favourites, library, setFavourite, remove } from "./images.js";
import { seedText } from "./settings.js";
import { reuse, reuseSeed, copyCommand, download, workOn, enlarge, canEnlarge, vary, moreLike } from "./actions.js";
import { singleKeys } from "./keys.js";
import { Button, Dialog } from "./controls.js";
import { Icon } from "./icons.js";
import { api } from "./api.js";

const when = (created) => (created ? new Date(created).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : null);

function useBrowsing({ list, id, more }) {
  const images = list();
  const at = images.findIndex((one) => one.id === id);
  const to = (index) => {
    if (index >= images.length - 3) more?.();
    if (images[index] !== undefined) viewer.patch({ id: images[index].id });
  };
  return { images, at, image: images[at] ?? null, before: at > 0 ? () => to(at - 1) : null, after: at < images.length - 1 ? () => to(at + 1) : null };
}

function Facts({ image }) {
  const facts = [["Size", sizeText(image.width, image.height)], ["Seed", seedText(image)], ["Model", image.model ?? "default"], ["Made", when(image.created)]];
  return html`<dl class="facts">${facts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => html`
    <div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Do({ icon, children, keys, ...rest }) {
  return html`<${Button} kind="do" icon=${icon} ...${rest}>${children}${keys && html` <kbd>${keys}</kbd>`}<//>`;
}

function Actions({ image, images, at }) {
  useSignal(favourites);
  const keys = useSignal(singleKeys);
  const key = (text) => (keys ? text : null);
  const loved = isFavourite(image);
  const neighbour = images[at + 1] ?? images[at - 1];
  return html`<div class="does">
    <div role="group" aria-label="Keep">
      <${Do} icon="heart" filled=${loved} pressed=${loved} keys=${key("F")} onClick=${() => setFavourite([image], !loved)}>Favourite<//>
      <${Do} icon="down" keys=${key("D")} onClick=${() => download(image)}>Download<//>
      <${Do} icon="copy" onClick=${() => copyCommand(image)}>Copy the command<//>
    </div>
    <div role="group" aria-label="Go on">
      <${Do} icon="reuse" keys=${key("R")} onClick=${() => reuse(image)}>Reuse settings<//>
      <${Do} icon="lock" onClick=${() => reuseSeed(image)}>Lock this seed<//>
      <${Do} icon="spark" onClick=${() => moreLike(image)}>Nine drafts of it<//>
    </div>
    <div role="group" aria-label="Change">
      ${canEnlarge(image) && html`<${Do} icon="grow" onClick=${() => enlarge(image)}>Enlarge<//>`}
      <${Do} icon="vary" keys=${key("V")} onClick=${() => vary(image)}>Vary<//>
      <${Do} icon="brush" keys=${key("E")} onClick=${() => workOn(image, "inpaint")}>Fill a part<//>
      <${Do} icon="image" onClick=${() => workOn(image, "image_to_image")}>Change it<//>
      ${neighbour && html`<${Do} icon="compare" keys=${key("C")} onClick=${() => comparing.set({ a: image, b: neighbour, choices: images.slice(Math.max(0, at - 12), at + 13) })}>Compare<//>`}
    </div>
    <div role="group" aria-label="Remove">
      <${Do} icon="bin" keys=${key("Del")} onClick=${() => away(image)}>Delete<//>
    </div>
  </div>`;
}

/** Delete what is looked at; the next one comes. */
function away(image) {
  const { list } = viewer.value;
  const images = list();
  const at = images.findIndex((one) => one.id === image.id);
  const next = images[at + 1] ?? images[at - 1] ?? null;
  remove([image]);
  if (next === null) viewer.set(null);
  else viewer.patch({ id: next.id });
}

function Large({ image }) {
  const [at, setAt] = useState({});
  const state = at.id === image.id ? at.state : "loading";
  const setState = (now) => setAt({ id: image.id, state: now });
  return html`<div class=${`large ${state}`}>
    ${image.thumbnail && state !== "ready" && html`<img class="under" src=${image.thumbnail} alt="" />`}
    ${state === "gone" ? html`<p class="gone"><${Icon} name="warn" />This image is no longer kept.</p>`
      : html`<img key=${image.id} class="over" src=${image.url ?? api.fileUrl(image.id)} alt=${image.prompt || "An image without a caption"} width=${image.width} height=${image.height}
        style=${{ aspectRatio: `${image.width} / ${image.height}` }} onLoad=${() => setState("ready")} onError=${() => setState("gone")} />`}
  </div>`;
}

const KEYS = {
  f: (image) => setFavourite([image], !isFavourite(image)), d: download, r: reuse, v: vary, e: (image) => workOn(image, "inpaint"),
};

export function Viewer() {
  const open = useSignal(viewer);
  return open && html`<${Open} open=${open} />`;
}

function Open({ open }) {
  const { images, at, image, before, after } = useBrowsing(open);
  const swipe = useRef(null);
  useEffect(() => { if (image === null) viewer.set(null); }, [image]);
  if (image === null) return null;
  const close = () => viewer.set(null);
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || comparing.value) return;
    if (event.key === "ArrowLeft" && before) before();
    else if (event.key === "ArrowRight" && after) after();
    else if (!singleKeys.value) return;
    else if (event.key === "Delete" || event.key === "Backspace") away(image);
    else if (event.key === "c") comparing.set({ a: image, b: images[at + 1] ?? images[at - 1] ?? image, choices: images.slice(Math.max(0, at - 12), at + 13) });
    else if (KEYS[event.key]) KEYS[event.key](image);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  // A finger that moves sideways browses; the buttons do the same.
  const down = (event) => { swipe.current = event.pointerType === "touch" ? event.clientX : null; };
  const up = (event) => {
    if (swipe.current === null) return;
    const by = event.clientX - swipe.current;
    if (by > 60) before?.();
    else if (by < -60) after?.();
    swipe.current = null;
  };
  return html`<${Dialog} label=${`Image: ${image.prompt || "no caption"}`} className="viewer" onClose=${close}>
    <div class="viewer-in" onKeyDown=${onKey}>
      <div class="stage-area" onPointerDown=${down} onPointerUp=${up}>
        <${Large} image=${image} />
        <${Button} kind="round before" icon="left" label="Newer image" disabled=${!before} onClick=${before ?? undefined} />
        <${Button} kind="round after" icon="right" label="Older image" disabled=${!after} onClick=${after ?? undefined} />
      </div>
      <aside class="about" aria-label="About this image">
        <div class="row spread"><span class="hint">${at + 1} of ${images.length}${open.more && library.value.next !== null ? "+" : ""}</span>
          <${Button} kind="quiet close" icon="close" label="Close" onClick=${close} /></div>
        <h2>${image.prompt || html`<em>No caption</em>`}</h2>
        <${Facts} image=${image} />
        <${Actions} image=${image} images=${images} at=${at} />
      </aside>
    </div>
  <//>`;
}
