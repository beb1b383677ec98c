// Two images on each other behind a divide, or beside each other.
import { html, useSignal, useState, sizeText } from "./ui.js";
import { comparing } from "./places.js";
import { seedText } from "./settings.js";
import { Button, Dialog, Segments } from "./controls.js";
import { api } from "./api.js";

const fileOf = (image) => image.url ?? api.fileUrl(image.id);
const nameOf = (image) => `${image.prompt || "no caption"}, ${sizeText(image.width, image.height)}, seed ${seedText(image)}`;

function Divided({ a, b, at, setAt }) {
  const follow = (event) => {
    if (event.buttons === 0) return;
    const box = event.currentTarget.getBoundingClientRect();
    setAt(Math.round(Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100))));
  };
  const down = (event) => { event.currentTarget.setPointerCapture(event.pointerId); follow(event); };
  return html`<div class="divided" onPointerDown=${down} onPointerMove=${follow} style=${{ aspectRatio: `${a.width} / ${a.height}` }}>
    <img src=${fileOf(b)} alt=${`Right: ${nameOf(b)}`} draggable=${false} />
    <img class="top" src=${fileOf(a)} alt=${`Left: ${nameOf(a)}`} draggable=${false} style=${{ clipPath: `inset(0 ${100 - at}% 0 0)` }} />
    <i class="divide-line" style=${{ left: `${at}%` }} aria-hidden="true"></i>
  </div>`;
}

function Choose({ label, value, choices, onValue }) {
  return html`<fieldset class="strip"><legend>${label}</legend><div>${choices.map((one) => html`
    <label key=${one.id}><input type="radio" name=${label} checked=${one.id === value.id} onChange=${() => onValue(one)} />
      <img src=${one.thumbnail} alt=${nameOf(one)} loading="lazy" /></label>`)}</div></fieldset>`;
}

export function Compare() {
  const open = useSignal(comparing);
  const [at, setAt] = useState(50);
  const [how, setHow] = useState("divide");
  if (open === null) return null;
  const { a, b, choices } = open;
  const close = () => comparing.set(null);
  return html`<${Dialog} label="Compare two images" className="compare" onClose=${close} focus="input[type=range]">
    <header><h2>Compare</h2>
      <${Segments} label="How" options=${{ divide: "On each other", beside: "Side by side" }} value=${how} onValue=${setHow} />
      <${Button} icon="vary" kind="swap" onClick=${() => comparing.set({ ...open, a: b, b: a })}>Swap<//>
      <${Button} kind="quiet" icon="close" label="Close" onClick=${close} /></header>
    <div class=${`compared ${how}`}>
      ${how === "divide" ? html`<${Divided} a=${a} b=${b} at=${at} setAt=${setAt} />`
        : html`<img src=${fileOf(a)} alt=${`Left: ${nameOf(a)}`} /><img src=${fileOf(b)} alt=${`Right: ${nameOf(b)}`} />`}
    </div>
    ${how === "divide" && html`<label class="divider"><span class="unseen">Place of the divide</span>
      <input type="range" min="0" max="100" value=${at} aria-valuetext=${`${at} % of the left image`} onInput=${({ target }) => setAt(Number(target.value))} /></label>`}
    ${choices.length > 2 && html`<div class="strips">
      <${Choose} label="Left" value=${a} choices=${choices} onValue=${(one) => comparing.set({ ...open, a: one })} />
      <${Choose} label="Right" value=${b} choices=${choices} onValue=${(one) => comparing.set({ ...open, b: one })} /></div>`}
  <//>`;
}
