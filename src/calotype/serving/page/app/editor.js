// The editor: paint the part of the source that is filled anew.
import { html, useSignal, useRef, useLayoutEffect, useEffect, useState, announce, toast, writes } from "./ui.js";
import { editor } from "./places.js";
import { source, setMask, mode, form } from "./settings.js";
import { generate } from "./jobs.js";
import { createEasel } from "./easel.js";
import { maskFile, pixelsOf } from "./mask.js";
import { singleKeys } from "./keys.js";
import { Button, Dialog, Field } from "./controls.js";

let easel = null; // of the present source: closing the editor keeps what was painted

/** The easel of the present source; another image begins with nothing painted. */
function easelFor(image) {
  if (easel === null || easel.image.url !== image.url) easel = createEasel(image);
  return easel;
}

/** Take over what is painted; returns whether it is something. */
async function takeOver(work) {
  const { fraction } = pixelsOf(work.context, work.painting);
  if (fraction === 0) { setMask(null); return false; }
  setMask(await maskFile(work.context, work.painting));
  mode.set("inpaint");
  return true;
}

function Sheet({ work }) {
  const { sight, tool, size, hover, cursor, box, erase, down } = useSignal(work.state);
  const area = useRef(null);
  const canvas = useRef(null);
  useLayoutEffect(() => {
    work.attach(canvas.current, area.current);
    const observer = new ResizeObserver(() => work.fit());
    observer.observe(area.current);
    // Not through Preact: a wheel handler must be able to keep the page where it is.
    const wheel = work.pointers.wheel;
    area.current.addEventListener("wheel", wheel, { passive: false });
    return () => { observer.disconnect(); area.current?.removeEventListener("wheel", wheel); };
  }, [work]);
  const { image } = work;
  const at = cursor ?? hover;
  const on = sight ?? { scale: 1, x: 0, y: 0 };
  const place = (x, y, width, height) => ({
    transform: `translate(${on.x + x * on.scale}px, ${on.y + y * on.scale}px)`, width: `${width * on.scale}px`, height: `${height * on.scale}px`,
  });
  const { pointerdown, pointermove, pointerup, pointercancel, pointerleave } = work.pointers;
  return html`<div class=${`easel ${tool}`} ref=${area} tabindex="0" role="application"
      aria-label="Painting area" aria-describedby="easel-keys" onKeyDown=${work.onKeyDown} onKeyUp=${work.onKeyUp}
      onPointerDown=${pointerdown} onPointerMove=${pointermove} onPointerUp=${pointerup} onPointerCancel=${pointercancel} onPointerLeave=${pointerleave}
      onContextMenu=${(event) => event.preventDefault()}>
    <div class="sheet" style=${{ width: `${image.width}px`, height: `${image.height}px`, transform: `translate(${on.x}px, ${on.y}px) scale(${on.scale})`, visibility: sight ? "visible" : "hidden" }}>
      <img src=${image.url} alt=${`Source: ${image.name}`} draggable=${false} class=${on.scale > 3 ? "pixel" : ""} />
      <canvas ref=${canvas} width=${image.width} height=${image.height} aria-hidden="true"></canvas>
    </div>
    ${box && html`<i class=${`box-now ${erase ? "erase" : ""}`} style=${place(box.x, box.y, box.width, box.height)}></i>`}
    ${at && tool === "brush" && html`<i class=${`brush-now ${erase ? "erase" : ""} ${cursor ? "by-key" : ""} ${down ? "down" : ""}`} style=${place(at.x - size / 2, at.y - size / 2, size, size)}></i>`}
    ${cursor && tool === "box" && html`<i class="cross" style=${{ transform: `translate(${on.x + cursor.x * on.scale}px, ${on.y + cursor.y * on.scale}px)` }}></i>`}
    <p id="easel-keys" class="unseen">Arrow keys move the brush or the corner, with Shift by one pixel. Space or Enter puts it down and lifts it. Escape gives up a stroke. Rectangles can be written as numbers below.</p>
  </div>`;
}

function Tools({ work }) {
  const { tool, erase, size, canUndo, canRedo } = useSignal(work.state);
  const keys = useSignal(singleKeys);
  const tip = (label, key) => (keys ? `${label} (${key})` : label);
  return html`<div class="tools" role="toolbar" aria-label="Tools">
    <div class="tool-group" role="group" aria-label="Paint with">
      <${Button} icon="brush" label=${tip("Brush", "B")} pressed=${tool === "brush" && !erase} onClick=${() => work.choose("brush", false)} />
      <${Button} icon="box" label=${tip("Rectangle", "R")} pressed=${tool === "box"} onClick=${() => work.choose("box")} />
      <${Button} icon="rubber" label=${tip("Erase", "X")} pressed=${erase} onClick=${() => work.choose(tool === "hand" ? "brush" : tool, !erase)} />
      <${Button} icon="hand" label=${tip("Move the image", "H")} pressed=${tool === "hand"} onClick=${() => work.choose("hand")} />
    </div>
    <label class="brush-size"><span>Size</span><input type="range" aria-label="Size of the brush" min="2" max="512" value=${size} aria-valuetext=${`${size} pixels`} onInput=${({ target }) => work.resize(Number(target.value))} /><output>${size}</output></label>
    <div class="tool-group" role="group" aria-label="All of it">
      <${Button} icon="undo" label="Undo (Ctrl+Z)" disabled=${!canUndo} onClick=${work.undo} />
      <${Button} icon="redo" label="Redo (Ctrl+Shift+Z)" disabled=${!canRedo} onClick=${work.redo} />
      <${Button} icon="invert" label=${tip("Invert", "I")} onClick=${work.invert} />
      <${Button} icon="bin" label="Clear" disabled=${!canUndo} onClick=${work.clear} />
    </div>
    <div class="tool-group" role="group" aria-label="Zoom">
      <${Button} icon="minus" label=${tip("Farther", "−")} onClick=${() => work.zoomBy(1 / 1.4)} />
      <${Button} icon="fit" label=${tip("All of it in sight", "0")} onClick=${work.fit} />
      <${Button} icon="plus" label=${tip("Nearer", "+")} onClick=${() => work.zoomBy(1.4)} />
    </div>
  </div>`;
}

/** A rectangle in numbers, for those who cannot or will not drag. */
function Numbers({ work }) {
  const { width, height } = work.image;
  const [box, setBox] = useState({ x: Math.round(width / 4), y: Math.round(height / 4), width: Math.round(width / 2), height: Math.round(height / 2) });
  const side = (name, label) => html`<${Field} label=${label}>${(ids) => html`<input type="number" ...${ids} value=${box[name]} onInput=${({ target }) => setBox({ ...box, [name]: Math.round(Number(target.value)) })} />`}<//>`;
  return html`<details class="numbers"><summary>Rectangle in numbers</summary><div class="row">
    ${side("x", "Left")}${side("y", "Top")}${side("width", "Width")}${side("height", "Height")}
    <${Button} onClick=${() => { if (box.width > 0 && box.height > 0) { work.addBox(box); announce("Rectangle added."); } }}>Add<//></div></details>`;
}

const KEYS = {
  b: (work) => work.choose("brush", false), r: (work) => work.choose("box"), h: (work) => work.choose("hand"), i: (work) => work.invert(),
  x: (work) => work.choose(work.state.value.tool, !work.state.value.erase), 0: (work) => work.fit(),
  "+": (work) => work.zoomBy(1.4), "=": (work) => work.zoomBy(1.4), "-": (work) => work.zoomBy(1 / 1.4),
  "]": (work) => work.resize(work.state.value.size * 1.25), "[": (work) => work.resize(work.state.value.size / 1.25),
};

function onKeys(work, fill, event) {
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (command && key === "enter") fill();
  else if (writes(event.target)) return;
  else if (command && key === "z") { if (event.shiftKey) work.redo(); else work.undo(); }
  else if (command && key === "y") work.redo();
  else if (!command && !event.altKey && singleKeys.value && KEYS[key]) KEYS[key](work);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

export function Editor() {
  const open = useSignal(editor);
  const image = useSignal(source);
  return open && image ? html`<${Open} key=${image.url} image=${image} />` : null;
}

function Open({ image }) {
  const work = easelFor(image);
  const prompt = useSignal(form, (value) => value.prompt);
  useEffect(() => () => work.giveUp(), []);
  const close = async () => {
    work.giveUp();
    const some = await takeOver(work);
    editor.set(false);
    if (some) announce("The part is chosen.");
  };
  const fill = async () => {
    work.giveUp();
    if (!(await takeOver(work))) { toast("Paint first what is to be filled.", { kind: "failure" }); return; }
    editor.set(false);
    generate();
  };
  return html`<${Dialog} label="Paint the part to fill" className="editor" onClose=${close} focus=".easel">
    <div class="editor-in" onKeyDown=${(event) => onKeys(work, fill, event)}>
      <header class="row spread"><h2>Paint what is filled anew</h2><${Button} kind="quiet" icon="close" label="Close; what is painted stays" onClick=${close} /></header>
      <${Tools} work=${work} />
      <${Sheet} work=${work} />
      <footer>
        <${Numbers} work=${work} />
        <div class="row fill-row">
          <label class="grow"><span class="unseen">Caption</span><input type="text" placeholder="What should be there?" value=${prompt} onInput=${({ target }) => form.patch({ prompt: target.value })} /></label>
          <${Button} onClick=${close}>Done<//>
          <${Button} kind="main" label="Ctrl+Enter" onClick=${fill}>Fill<//>
        </div>
      </footer>
    </div>
  <//>`;
}
