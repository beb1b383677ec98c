// Styles and backgrounds that the model knows: a chip writes its words into the caption.
import { html, useSignal, useState } from "./ui.js";
import { form } from "./settings.js";
import { capabilities } from "./server.js";
import { Icon } from "./icons.js";

const textOf = (chip) => (typeof chip === "string" ? chip : chip.text ?? chip.name);
const article = (word) => (/^[aeiou]/i.test(word) ? "an" : "a");
export const styleWords = (style) => `, ${style}`;
export const groundWords = (colour) => `, on ${article(colour)} ${colour} background`;

const colourOf = (chip) => (Array.isArray(chip?.rgb) ? `rgb(${chip.rgb.join(" ")})` : textOf(chip));

const has = (prompt, words) => prompt.toLowerCase().includes(words.toLowerCase());

/** The caption with `words` in it or, where they were, out of it; `others` give way. */
export function toggled(prompt, words, others) {
  let text = prompt;
  for (const other of others) {
    const at = text.toLowerCase().indexOf(other.toLowerCase());
    if (at >= 0) text = text.slice(0, at) + text.slice(at + other.length);
  }
  return has(prompt, words) ? text.trim() : text.trim() + (text.trim() === "" ? words.slice(2) : words);
}

/** A caption's style stands before its background, as in the captions the model learnt from. */
function withStyle(prompt, words, styles, grounds) {
  const ground = grounds.find((one) => has(prompt, one));
  const plain = ground === undefined ? prompt : toggled(prompt, ground, [ground]);
  const styled = toggled(plain, words, styles);
  return ground === undefined ? styled : styled + ground;
}

function Chip({ pressed, onPress, children }) {
  return html`<button type="button" class="chip" aria-pressed=${pressed} onClick=${onPress}>
    ${pressed && html`<${Icon} name="check" />`}${children}</button>`;
}

export function Chips() {
  const prompt = useSignal(form, (value) => value.prompt);
  const known = useSignal(capabilities);
  const [all, setAll] = useState(false);
  const styles = known?.styles ?? [];
  const grounds = known?.backgrounds ?? [];
  if (styles.length + grounds.length === 0) return null;
  const styleAll = styles.map((one) => styleWords(textOf(one)));
  const groundAll = grounds.map((one) => groundWords(textOf(one)));
  const set = (text) => form.patch({ prompt: text });
  const shown = grounds.filter((one, index) => all || index < 6 || has(prompt, groundAll[index]));
  return html`<div class="chip-groups">
    ${styles.length > 0 && html`<div class="chips" role="group" aria-label="Styles">
      ${styles.map((one, index) => html`<${Chip} key=${textOf(one)} pressed=${has(prompt, styleAll[index])}
        onPress=${() => set(withStyle(prompt, styleAll[index], styleAll, groundAll))}>${textOf(one).replace(/ style$/, "")}<//>`)}
    </div>`}
    ${grounds.length > 0 && html`<div class="chips" role="group" aria-label="Backgrounds">
      ${shown.map((one) => html`<${Chip} key=${textOf(one)} pressed=${has(prompt, groundWords(textOf(one)))}
        onPress=${() => set(toggled(prompt, groundWords(textOf(one)), groundAll))}>
        <i class="swatch" style=${{ background: colourOf(one) }}></i>${textOf(one)}<//>`)}
      ${grounds.length > shown.length && html`<button type="button" class="chip more" onClick=${() => setAll(true)}>${grounds.length - shown.length} more</button>`}
    </div>`}
  </div>`;
}
