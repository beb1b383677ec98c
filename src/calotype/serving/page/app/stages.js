// Every stage's settings, folded away: the model's own stand in the empty fields.
import { html, useSignal, useState } from "./ui.js";
import { form } from "./settings.js";
import { modelNamed, settingsOf, limits } from "./server.js";
import { Field, Button } from "./controls.js";

// Names of SamplingConfig in plain words, with what they do.
const WORDS = {
  steps: ["Steps", "More is finer and slower."],
  sampler: ["Sampler", null],
  guidance_weight: ["Guidance", "1 is off; more keeps closer to the caption."],
  variety: ["Variety", "0 keeps to the draft, 1 differs most between seeds."],
  grid: ["Grid of levels", null],
  start: ["Begin from", null],
  sigma_max: ["Noisiest level", "sigma/alpha"],
  sigma_min: ["Last noisy level", "sigma/alpha"],
  rho: ["Curvature of the grid", null],
  guidance_interval: ["Guidance between", "Two sigma/alpha, such as 0.5, 5; none is everywhere."],
  guidance_rescale: ["Guidance rescale", "0 is off."],
  oscillating_guidance: ["Oscillating guidance", null],
  threshold_percentile: ["Threshold percentile", "Above 0 up to 1; none clips."],
  static_clip: ["Clip where there is no threshold", null],
  threshold_ceiling: ["Threshold ceiling", "1 or more; none is without."],
  timesteps: ["Timesteps", "Falling whole numbers; they replace the steps."],
  aug_level: ["Noise on the small image", "0 to 1; more invents more."],
  ddpm_interpolation: ["Interpolation of DDPM", "0 to 1."],
};
const FIRST = ["steps", "sampler", "guidance_weight", "variety", "aug_level"];
const CHOICES = { grid: ["schedule", "karras"], start: ["noise", "draft"] };

export const shownValue = (value) => (
  value === null || value === undefined ? "none" : Array.isArray(value) ? value.join(", ") : String(value));

/** What somebody wrote, as JSON; undefined = the model's own; raises with what is wrong. */
export function readValue(name, text, own) {
  const plain = text.trim();
  if (plain === "") return undefined;
  const list = name === "guidance_interval" || name === "timesteps";
  if (plain.toLowerCase() === "none") {
    if (own === null || list || name.startsWith("threshold_")) return null;
    throw new Error("This needs a number.");
  }
  const numbers = plain.split(list ? /[\s,]+/ : /$^/).map(Number);
  if (numbers.some((one) => !Number.isFinite(one))) throw new Error("This needs a number.");
  if (name === "steps" && (!Number.isInteger(numbers[0]) || numbers[0] < 1 || numbers[0] > limits().steps)) {
    throw new Error(`A whole number from 1 to ${limits().steps}.`);
  }
  return list ? numbers : numbers[0];
}

function change(resolution, name, value) {
  const { stages } = form.value;
  const { [name]: _, ...rest } = stages[resolution] ?? {};
  const now = value === undefined ? rest : { ...rest, [name]: value };
  const { [resolution]: __, ...others } = stages;
  form.patch({ stages: Object.keys(now).length === 0 ? others : { ...others, [resolution]: now } });
}

function Setting({ resolution, name, own, changed, samplers }) {
  const [fault, setFault] = useState(null);
  const [writing, setWriting] = useState(null); // the text while somebody writes
  const [label, hint] = WORDS[name] ?? [name.replaceAll("_", " "), null];
  const choices = name === "sampler" ? samplers : CHOICES[name];
  const set = (value) => { setFault(null); change(resolution, name, value); };
  const write = (text) => {
    setWriting(text);
    try { set(readValue(name, text, own)); } catch (error) { setFault(error.message); }
  };
  const aside = changed !== undefined && html`<button type="button" class="link" aria-label=${`${label}: back to the model's own`} onClick=${() => { setWriting(null); set(undefined); }}>reset</button>`;
  if (typeof own === "boolean" || choices) {
    const options = (choices ?? [true, false]).filter((one) => one !== own || changed === own);
    const text = (value) => (value === true ? "yes" : value === false ? "no" : value);
    return html`<${Field} label=${label} hint=${hint} aside=${aside}>${(ids) => html`
      <select ...${ids} class=${changed === undefined ? "own" : ""} value=${changed === undefined ? "" : String(changed)}
        onChange=${({ target }) => set(target.value === "" ? undefined : options.find((one) => String(one) === target.value))}>
        <option value="">${text(own)}</option>
        ${options.map((one) => html`<option key=${one} value=${String(one)}>${text(one)}</option>`)}
      </select>`}<//>`;
  }
  return html`<${Field} label=${label} hint=${hint} fault=${fault} aside=${aside}>${(ids) => html`
    <input type="text" inputmode=${own === null ? "text" : "decimal"} autocomplete="off" ...${ids} placeholder=${shownValue(own)}
      value=${writing ?? (changed === undefined ? "" : shownValue(changed))}
      onInput=${({ target }) => write(target.value)} onBlur=${() => { if (fault === null) setWriting(null); }} />`}<//>`;
}

const known = (stage, model, isBase) => {
  const own = settingsOf(stage);
  const names = (model.tunable ?? Object.keys(own)).filter((name) => name in own && own[name] !== undefined);
  const useful = names.filter((name) => (isBase ? name !== "aug_level" : name !== "variety" && name !== "start"));
  return [...FIRST.filter((name) => useful.includes(name)), ...useful.filter((name) => !FIRST.includes(name))];
};

export function Stages() {
  const { model: name, stages } = useSignal(form);
  const model = modelNamed(name);
  if (model === null) return null;
  const count = Object.values(stages).reduce((sum, one) => sum + Object.keys(one).length, 0);
  return html`<div class="stages">
    <p class="row spread"><span class="hint">${count > 0 ? `${count} changed` : "What is grey is the model's own."}</span>
      ${count > 0 && html`<${Button} kind="small" icon="reuse" onClick=${() => form.patch({ stages: {} })}>All the model's own<//>`}</p>
    ${model.stages.map((stage, index) => {
      const own = settingsOf(stage);
      const changed = stages[stage.resolution] ?? {};
      const number = Object.keys(changed).length;
      return html`<details key=${stage.resolution} class="stage">
        <summary>${index === 0 ? "Base" : "Stage"} ${stage.resolution}²
          <small>${shownValue(changed.steps ?? own.steps)} steps${number > 0 ? ` · ${number} changed` : ""}</small></summary>
        <div class="pairs">${known(stage, model, index === 0).map((key) => html`<${Setting} key=${key} name=${key}
          resolution=${String(stage.resolution)} own=${own[key]} changed=${changed[key]} samplers=${model.samplers ?? []} />`)}</div>
      </details>`;
    })}
  </div>`;
}
