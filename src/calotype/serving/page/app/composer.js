// The form: caption, chips, source, number, size, seed, and everything else folded away.
import { html, useSignal, useRef, useEffect, sizeText } from "./ui.js";
import { form, source, mode, lastSeed, seedFault, formFault, clearForm, varietyOf, setVariety, classField, DRAFT_VARIETY } from "./settings.js";
import { capabilities, modelNamed, offeredSizes, limits, largest, ownVariety, classesOf } from "./server.js";
import { generate, draft } from "./jobs.js";
import { Button, Field, Slider } from "./controls.js";
import { Chips } from "./chips.js";
import { Stages } from "./stages.js";
import { SourcePanel } from "./source.js";

const set = (part) => form.patch(part);

function Caption() {
  const prompt = useSignal(form, (value) => value.prompt);
  const ref = useRef(null);
  useEffect(() => { // as tall as its text
    const area = ref.current;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 320)}px`;
  }, [prompt]);
  const most = limits().prompt;
  const fault = prompt.length > most ? `${prompt.length} characters; at most ${most} are taken.` : null;
  return html`<${Field} label="Caption" fault=${fault} className="caption">${(ids) => html`
    <textarea ref=${ref} id=${ids.id} ...${ids} class="prompt" name="prompt" rows="3" value=${prompt} autocomplete="off"
      placeholder="What do you want to see?" enterkeyhint="enter" onInput=${({ target }) => set({ prompt: target.value })}></textarea>`}<//>`;
}

/** What is to be seen, of a model with classes. */
function Class({ kind }) {
  const values = useSignal(form);
  const { names, required } = classesOf(modelNamed(values.model), kind);
  if (names.length === 0) return null;
  return html`<${Field} label="Class">${(ids) => html`
    <select ...${ids} name="class" value=${classField(values, kind).class ?? ""} onChange=${({ target }) => set({ class: target.value || null })}>
      ${!required && html`<option value="">none</option>`}
      ${names.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>`}<//>`;
}

function Count() {
  const n = useSignal(form, (value) => value.n);
  const most = limits().n;
  const to = (value) => set({ n: Math.min(most, Math.max(1, Math.round(value) || 1)) });
  const write = ({ target }) => { const value = Number(target.value); if (Number.isInteger(value) && value >= 1 && value <= most) set({ n: value }); };
  return html`<${Field} label="Images">${(ids) => html`<span class="stepper">
    <${Button} icon="minus" label="One less" disabled=${n <= 1} onClick=${() => to(n - 1)} />
    <input type="number" ...${ids} name="n" min="1" max=${most} value=${n} onInput=${write} onChange=${({ target }) => { to(Number(target.value)); target.value = form.value.n; }} />
    <${Button} icon="plus" label="One more" disabled=${n >= most} onClick=${() => to(n + 1)} />
  </span>`}<//>`;
}

function Size() {
  const { size, custom, model: name } = useSignal(form);
  const model = modelNamed(name);
  const [least, most] = limits().side;
  const now = size ?? [largest(model), largest(model)];
  const offered = offeredSizes(model);
  const known = offered.find(([w, h]) => w === now[0] && h === now[1]);
  const open = custom || known === undefined;
  const side = (index) => ({ target }) => {
    const value = Math.min(most, Math.max(least, Math.round(Number(target.value)) || least));
    target.value = value;
    set({ size: now.map((one, at) => (at === index ? value : one)) });
  };
  const write = (index) => ({ target }) => {
    const value = Number(target.value);
    if (Number.isInteger(value) && value >= least && value <= most) set({ size: now.map((one, at) => (at === index ? value : one)) });
  };
  return html`<${Field} label="Size">${(ids) => html`
    <select ...${ids} name="size" value=${open ? "custom" : known.join("x")} onChange=${({ target }) => set(
      target.value === "custom" ? { size: now, custom: true } : { size: target.value.split("x").map(Number), custom: false })}>
      ${offered.map(([w, h]) => html`<option key=${`${w}x${h}`} value=${`${w}x${h}`}>${sizeText(w, h)}</option>`)}
      <option value="custom">Other …</option>
    </select>
    ${open && html`<span class="sides">
      <input type="number" aria-label="Width in pixels" min=${least} max=${most} value=${now[0]} onInput=${write(0)} onChange=${side(0)} />
      <span aria-hidden="true">×</span>
      <input type="number" aria-label="Height in pixels" min=${least} max=${most} value=${now[1]} onInput=${write(1)} onChange=${side(1)} />
    </span>`}`}<//>`;
}

/** Lock the seed; where none is written, that of the last images. */
export function toggleLock() {
  const { locked, seed } = form.value;
  if (locked) set({ locked: false });
  else set({ locked: true, seed: seed.trim() || (lastSeed.value ?? String(crypto.getRandomValues(new Uint32Array(1))[0])) });
}

function Seed() {
  const { seed, locked } = useSignal(form);
  const last = useSignal(lastSeed);
  const fault = locked ? seedFault(seed) : null;
  return html`<${Field} label="Seed" fault=${fault} className="seed">${(ids) => html`<span class="joined">
    <input type="text" inputmode="numeric" autocomplete="off" ...${ids} name="seed" value=${locked ? seed : ""}
      placeholder=${last === null ? "random" : `random · last ${last}`}
      onInput=${({ target }) => set({ seed: target.value, locked: target.value.trim() !== "" })} />
    <${Button} icon=${locked ? "lock" : "unlock"} pressed=${locked} label=${locked ? "Seed is locked: press for random seeds" : "Lock the seed: use the last one again"} onClick=${toggleLock} />
  </span>`}<//>`;
}

/** How much seeds differ, where the model samples from a draft of the caption. */
function Variety() {
  const values = useSignal(form);
  const own = ownVariety(modelNamed(values.model));
  if (own === null) return null;
  const chosen = varietyOf(values);
  return html`<div class="variety"><${Slider} label="Variety" min="0" max="1" step="0.05" value=${chosen ?? own} onValue=${setVariety}
      show=${(value) => `${Math.round(value * 100)} %${chosen === null ? " · model's own" : ""}`}
      hint=${chosen === null && own === 0 ? `How much seeds differ. Drafts take ${Math.round(DRAFT_VARIETY * 100)} % unless you set it.` : "How much seeds differ; more wants more steps."} />
    ${chosen !== null && html`<button type="button" class="link" onClick=${() => setVariety(null)}>The model's own</button>`}</div>`;
}

function More() {
  const { negative, model: name, exact } = useSignal(form);
  const models = useSignal(capabilities)?.models ?? [];
  const model = modelNamed(name);
  return html`<details class="more"><summary>More settings</summary>
    ${models.length > 1 && html`<${Field} label="Model">${(ids) => html`<select ...${ids} name="model" value=${model?.name}
      onChange=${({ target }) => set({ model: target.value, stages: {} })}>
      ${models.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}</select>`}<//>`}
    <${Field} label="Negative caption" hint="What images should not show.">${(ids) => html`
      <textarea ...${ids} name="negative" rows="2" value=${negative} onInput=${({ target }) => set({ negative: target.value })}></textarea>`}<//>
    <label class="tick"><input type="checkbox" checked=${exact} onChange=${({ target }) => set({ exact: target.checked })} />
      <span>Exact <small>Alone, bit for bit as the command makes it; slower.</small></span></label>
    <${Stages} />
    <${Button} kind="small" icon="reuse" onClick=${clearForm}>Clear the form<//>
  </details>`;
}

/** Both actions; on a phone they stay in reach. */
function Actions() {
  const values = useSignal(form);
  const origin = useSignal(source);
  const what = useSignal(mode);
  const fits = formFault(values, origin, what) === null;
  const edits = origin !== null;
  const words = edits ? { inpaint: "Fill", upscale: "Enlarge", vary: "Vary" }[what] ?? "Change" : "Generate";
  return html`<div class="actions">
    <${Button} kind="main" disabled=${!fits} onClick=${generate} aria-keyshortcuts="Control+Enter" label="Ctrl+Enter">${words}${values.n > 1 && what !== "upscale" ? ` ${values.n}` : ""}<//>
    ${!edits && html`<${Button} icon="spark" disabled=${!fits} onClick=${draft} aria-keyshortcuts="Control+Shift+Enter" label="Ctrl+Shift+Enter: nine small images at once">Nine drafts<//>`}
  </div>`;
}

export function Composer() {
  const origin = useSignal(source);
  const what = useSignal(mode);
  useSignal(capabilities);
  return html`<form class="composer" aria-label="What to make" onSubmit=${(event) => { event.preventDefault(); generate(); }}>
    <${Caption} />
    <${Chips} />
    <${Class} kind=${origin === null ? "sample" : what} />
    <${SourcePanel} />
    <div class="pairs basics">
      ${!(origin && what === "upscale") && html`<${Count} />`}
      ${origin === null && html`<${Size} />`}
    </div>
    <${Seed} />
    ${(origin === null || what === "image_to_image" || what === "inpaint") && html`<${Variety} />`}
    <${More} />
    <${Actions} />
  </form>`;
}
