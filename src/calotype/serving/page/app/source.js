// The image that is worked on, and what is done with it.
import { html, useSignal, sizeText } from "./ui.js";
import { source, mode, mask, form, setSource, MODES, enlarged, growsBy } from "./settings.js";
import { modelNamed } from "./server.js";
import { pickFile, reading } from "./intake.js";
import { editor } from "./places.js";
import { Button, Segments, Slider } from "./controls.js";
import { Icon } from "./icons.js";

const percent = (value) => `${Math.round(value * 100)} %`;

function How() {
  const { strength, vary, model: name } = useSignal(form);
  const what = useSignal(mode);
  const origin = useSignal(source);
  const painted = useSignal(mask);
  if (what === "image_to_image") {
    return html`<${Slider} label="How much is made anew" min="0.05" max="1" step="0.05" value=${strength} show=${percent}
      hint="Little stays close to the image; 100 % hardly looks at it." onValue=${(value) => form.patch({ strength: value })} />`;
  }
  if (what === "vary") {
    return html`<${Slider} label="How far it varies" min="0" max="1" step="0.05" value=${vary} show=${percent}
      hint="The same image in other strokes." onValue=${(value) => form.patch({ vary: value })} />`;
  }
  if (what === "upscale") {
    const [width, height] = enlarged(origin, modelNamed(name));
    if (!growsBy(origin, modelNamed(name))) return html`<p class="hint">It has ${sizeText(origin.width, origin.height)} already, as large as this model makes images.</p>`;
    return html`<p class="hint">${sizeText(origin.width, origin.height)} becomes ${sizeText(width, height)}. The caption should say what it shows.</p>`;
  }
  return html`<div class="row">
    <${Button} icon="brush" kind=${painted === null ? "accent" : ""} onClick=${() => editor.set(true)}>${painted === null ? "Paint the part" : "Change the part"}<//>
    <span class="hint">${painted === null ? "Nothing is chosen yet." : `${percent(painted.fraction)} of the image is filled anew; the rest stays to the bit.`}</span>
  </div>`;
}

export function SourcePanel() {
  const origin = useSignal(source);
  const what = useSignal(mode);
  const painted = useSignal(mask);
  const busy = useSignal(reading);
  if (origin === null) {
    return html`<button type="button" class="drop-here" onClick=${() => pickFile()} aria-busy=${busy}>
      <${Icon} name="image" /><span>${busy ? "Reading the image …" : html`<b>Begin from an image</b> <small>Drop, paste or pick. One made here or by A1111 restores its settings.</small>`}</span></button>`;
  }
  return html`<section class="source" aria-label="Source">
    <div class="row top">
      <span class="source-image"><img src=${origin.url} alt=${`Source: ${origin.name}`} />
        ${painted && what === "inpaint" && html`<img class="painted" src=${painted.url} alt="" />`}</span>
      <span class="source-words"><b>${origin.name}</b><small>${sizeText(origin.width, origin.height)}</small>
        <span class="row"><${Button} kind="small" onClick=${() => pickFile({ mayRestore: false })}>Other image<//>
        <${Button} kind="small" onClick=${() => setSource(null)}>Remove<//></span></span>
    </div>
    <${Segments} label="What to do with it" options=${MODES} value=${what} onValue=${(value) => mode.set(value)} />
    <${How} />
  </section>`;
}
