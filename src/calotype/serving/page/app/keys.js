// Keys for the whole page, and the list of them. Those of one letter can be switched off.
import { html, remembered, useSignal, writes, announce } from "./ui.js";
import { help, viewer, editor, comparing, chosen, go } from "./places.js";
import { generate, draft, cancel, activeJobs } from "./jobs.js";
import { source } from "./settings.js";
import { Button, Dialog } from "./controls.js";
import { toggleLock } from "./composer.js";

export const singleKeys = remembered("single-keys", true);

const LIST = [
  ["Everywhere", [
    ["Ctrl Enter", "Generate"], ["Ctrl Shift Enter", "Nine drafts"], ["Esc", "Close, or cancel the newest job"],
    ["?", "This list", true], ["/", "Go to the caption", true], ["G", "Library", true], ["N", "Create", true], ["L", "Lock or free the seed", true]]],
  ["Library", [["← → ↑ ↓", "Browse"], ["Home End", "First, last"], ["Enter", "Open"], ["S", "Search", true]]],
  ["An image", [
    ["← →", "Newer, older"], ["F", "Favourite", true], ["D", "Download", true], ["R", "Reuse settings", true], ["V", "Vary", true],
    ["E", "Fill a part", true], ["C", "Compare", true], ["Del", "Delete", true]]],
  ["Painting", [
    ["← → ↑ ↓", "Move the brush; with Shift by a pixel"], ["Space", "Put it down, lift it"], ["Ctrl Z", "Undo"], ["Ctrl Shift Z", "Redo"],
    ["B", "Brush", true], ["R", "Rectangle", true], ["X", "Erase", true], ["I", "Invert", true], ["H", "Move the image", true], ["[ ]", "Smaller, larger brush", true], ["+ − 0", "Nearer, farther, all", true]]],
];

export function Help() {
  const open = useSignal(help);
  const on = useSignal(singleKeys);
  if (!open) return null;
  const close = () => help.set(false);
  return html`<${Dialog} label="Keys" className="help" onClose=${close}>
    <header class="row spread"><h2>Keys</h2><${Button} kind="quiet" icon="close" label="Close" onClick=${close} /></header>
    <label class="tick"><input type="checkbox" checked=${on} onChange=${({ target }) => singleKeys.set(target.checked)} />
      <span>Keys of one letter <small>Switch them off if you speak to your computer or press keys by accident.</small></span></label>
    <div class="key-lists">${LIST.map(([name, keys]) => html`<section key=${name}><h3>${name}</h3><dl>
      ${keys.map(([key, what, single]) => html`<div key=${key} class=${single && !on ? "off" : ""}><dt>${key.split(" ").map((one) => html`<kbd key=${one}>${one}</kbd> `)}</dt><dd>${what}${single && !on ? html` <small>(off)</small>` : ""}</dd></div>`)}
    </dl></section>`)}</div>
  <//>`;
}

const focusOn = (selector) => requestAnimationFrame(() => document.querySelector(selector)?.focus());

const SINGLE = {
  "?": () => help.set(true),
  "/": () => { go("create"); focusOn(".prompt"); },
  g: () => go("library"),
  n: () => go("create"),
  l: toggleLock,
  s: () => { go("library"); focusOn("[name=search]"); },
};

const somethingOpen = () => viewer.value || editor.value || comparing.value || help.value;

function escape() {
  if (chosen.value !== null) { chosen.set(null); return; }
  const [newest] = activeJobs();
  if (newest === undefined) { announce("Nothing runs."); return; }
  cancel(newest);
}

export function listenForKeys() {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key === "Enter" && !somethingOpen()) {
      if (event.shiftKey && source.value === null) draft();
      else generate();
      event.preventDefault();
    } else if (event.key === "Escape" && !somethingOpen() && document.querySelector("dialog[open]") === null) {
      escape();
    } else if (!command && !event.altKey && singleKeys.value && !writes(event.target) && SINGLE[event.key]
        && (event.key === "?" || !somethingOpen())) {
      SINGLE[event.key]();
      event.preventDefault();
    }
  });
}
