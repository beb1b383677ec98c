// All images that are kept: search, favourites, several at once.
import { html, useSignal, useState, useEffect, useRef, plural, announce } from "./ui.js";
import { library, filter, lookFor, reload, loadMore, present, deleted, favourites, isFavourite, setFavourite, remove } from "./images.js";
import { downloadZip } from "./actions.js";
import { server } from "./server.js";
import { viewer, comparing, chosen, go } from "./places.js";
import { Button, Empty } from "./controls.js";
import { Arriving } from "./tile.js";
import { Grid } from "./grid.js";
import { Icon } from "./icons.js";

const shownNow = () => present(library.value.images);

function Search() {
  const { search, favourite } = useSignal(filter);
  const [text, setText] = useState(search);
  const timer = useRef(null);
  useEffect(() => { if (search !== text.trim()) setText(search); }, [search]); // cleared elsewhere
  const input = (value) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => lookFor({ search: value.trim() }), 250);
  };
  return html`<form role="search" class="search" onSubmit=${(event) => { event.preventDefault(); clearTimeout(timer.current); lookFor({ search: text.trim() }); }}>
    <label class="search-box"><span class="unseen">Search captions</span><${Icon} name="search" />
      <input type="search" name="search" placeholder="Search captions" value=${text} autocomplete="off" onInput=${({ target }) => input(target.value)} /></label>
    <${Button} kind="short" icon="heart" filled=${favourite} pressed=${favourite} onClick=${() => lookFor({ favourite: !favourite })}>Favourites<//>
  </form>`;
}

function ImageTile({ image, index, stop, selecting, chosen, onOpen, onChoose }) {
  const [gone, setGone] = useState(false);
  const name = image.prompt || "An image without a caption";
  return html`<div class=${`tile ready ${chosen ? "chosen" : ""}`}>
    <button type="button" class="open" tabindex=${stop ? 0 : -1} aria-pressed=${selecting ? chosen : undefined} onClick=${selecting ? onChoose : onOpen}>
      ${gone ? html`<span class="lost"><${Icon} name="image" />${name}</span>`
        : html`<${Arriving} src=${image.thumbnail} alt=${name} eager onGone=${() => setGone(true)} />`}
    </button>
    ${selecting ? html`<span class="tick-mark" aria-hidden="true">${chosen && html`<${Icon} name="check" />`}</span>`
      : isFavourite(image) && html`<span class="mark"><${Icon} name="heart" filled /><span class="unseen">Favourite</span></span>`}
  </div>`;
}

function Several({ ids, end }) {
  const done = useRef(null);
  const images = shownNow().filter((one) => ids.has(one.id));
  const count = images.length;
  const all = images.length > 0 && images.every(isFavourite);
  return html`<div class="several" role="toolbar" aria-label="Chosen images" ref=${done}>
    <b>${count === 0 ? "Choose images" : `${count} chosen`}</b>
    <${Button} icon="down" disabled=${count === 0} label="Download as one zip file" onClick=${() => downloadZip(images)}>Zip<//>
    <${Button} icon="compare" disabled=${count !== 2} label="Compare two images" onClick=${() => comparing.set({ a: images[1], b: images[0], choices: images })}>Compare<//>
    <${Button} icon="heart" filled=${all} disabled=${count === 0} onClick=${() => setFavourite(images, !all)}>Favourite<//>
    <${Button} icon="bin" disabled=${count === 0} onClick=${() => { remove(images); chosen.set(new Set()); done.current.querySelector(".main").focus(); }}>Delete<//>
    <${Button} kind="main" onClick=${end}>Done<//>
  </div>`;
}

function Nothing({ state, error }) {
  const { search, favourite } = filter.value;
  if (state === "failed") return html`<${Empty} icon="warn" title="The library cannot be shown"><p>${error}.</p><p><${Button} icon="again" onClick=${reload}>Try again<//></p><//>`;
  if (search !== "") return html`<${Empty} icon="search" title=${`Nothing for “${search}”`}><p>Fewer words find more.</p><p><${Button} onClick=${() => lookFor({ search: "", favourite: false })}>Show all images<//></p><//>`;
  if (favourite) return html`<${Empty} icon="heart" title="No favourites yet"><p>Press the heart on an image, or <kbd>F</kbd> while you look at it.</p><p><${Button} onClick=${() => lookFor({ favourite: false })}>Show all images<//></p><//>`;
  if (server.value.store === "unopened") return html`<${Empty} icon="warn" title="The library is closed"><p>The disk was full when the server started. Free space on it and start the server again.</p><//>`;
  if (server.value.kept === "none") return html`<${Empty} title="This server keeps no images"><p>It was started with <code>--keep none</code>. Download what you want to have.</p><//>`;
  return html`<${Empty} title="No images yet"><p>Everything you make is kept here.</p><p><${Button} kind="main" onClick=${() => go("create")}>Make the first<//></p><//>`;
}

export function Library() {
  const { images, next, state, error } = useSignal(library);
  useSignal(deleted);
  useSignal(favourites);
  const [at, setAt] = useState(0);
  const ids = useSignal(chosen);
  const selecting = ids !== null;
  const { search } = useSignal(filter);
  const shown = present(images);
  useEffect(() => { if (state === "loading" && images.length === 0) reload(); }, []);
  useEffect(() => { if (state === "ready" && search !== "") announce(`${plural(shown.length, "image")}${next === null ? "" : " and more"} for ${search}.`); }, [state, search]);
  useEffect(() => () => chosen.set(null), []);
  const flip = (id) => chosen.set((now) => { const set = new Set(now); if (!set.delete(id)) set.add(id); return set; });
  const open = (image) => viewer.set({ list: shownNow, id: image.id, more: loadMore });
  return html`<section class="library" aria-label="Library">
    <h2 class="unseen">Library</h2>
    <div class="library-head"><${Search} />
      ${!selecting && html`<${Button} kind="short" icon="check" disabled=${shown.length === 0} onClick=${() => chosen.set(new Set())}>Select<//>`}</div>
    ${selecting && html`<${Several} ids=${ids} end=${() => chosen.set(null)} />`}
    ${state === "loading" && html`<div class="grid-skeleton" aria-busy="true" aria-label="Loading">${Array.from({ length: 12 }, (_, index) => html`<i key=${index}></i>`)}</div>`}
    ${state !== "loading" && shown.length === 0 && html`<${Nothing} state=${state} error=${error} />`}
    ${shown.length > 0 && html`<${Grid} items=${shown} total=${next === null ? shown.length : null} label="Images" at=${at} onAt=${setAt} onNear=${loadMore}
      tile=${(image, index, stop) => html`<${ImageTile} image=${image} index=${index} stop=${stop} selecting=${selecting} chosen=${selecting && ids.has(image.id)}
        onOpen=${() => { setAt(index); open(image); }} onChoose=${() => { setAt(index); flip(image.id); }} />`} />`}
    ${shown.length > 0 && next !== null && html`<p class="hint below">${state === "failed"
      ? html`More could not be loaded: ${error}. <${Button} kind="small" onClick=${() => { library.patch({ state: "ready" }); loadMore(); }}>Try again<//>` : "Loading more …"}</p>`}
  </section>`;
}
