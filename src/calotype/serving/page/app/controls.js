// Controls that the whole page shares.
import { html, useId, useLayoutEffect, useRef, useSignal, toasts, spoken } from "./ui.js";
import { Icon } from "./icons.js";

/** A button; `icon` alone needs a `label`, which is then its name and its tip. */
export function Button({ icon, label, children, kind = "", pressed, filled, ...rest }) {
  const alone = children === undefined || children === null;
  return html`<button type="button" class=${`button ${kind} ${alone ? "alone" : ""}`}
      aria-label=${alone ? label : undefined} title=${label} aria-pressed=${pressed} ...${rest}>
    ${icon && html`<${Icon} name=${icon} filled=${filled} />`}
    ${!alone && html`<span>${children}</span>`}
  </button>`;
}

/** A label, its control, a hint and what is wrong. `children` is called with the control's ids. */
export function Field({ label, hint, fault, children, className = "", aside = null }) {
  const id = useId();
  const notes = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(" ") || undefined;
  return html`<div class=${`field ${className}`}>
    <div class="label-row"><label for=${id}>${label}</label>${aside}</div>
    ${children({ id, "aria-describedby": notes, "aria-invalid": fault ? "true" : undefined })}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${fault && html`<p class="fault" id=${`${id}-fault`}><${Icon} name="warn" />${fault}</p>`}
  </div>`;
}

/** A number on a track, with its value beside it. */
export function Slider({ label, value, onValue, min, max, step, hint, show = String }) {
  return html`<${Field} label=${label} hint=${hint} className="slider"
      aside=${html`<output>${show(value)}</output>`}>
    ${(ids) => html`<input type="range" ...${ids} min=${min} max=${max} step=${step} value=${value}
      aria-valuetext=${show(value)} onInput=${(event) => onValue(Number(event.target.value))} />`}
  <//>`;
}

/** One of a few, as radio buttons. `options` is {value: label}. */
export function Segments({ label, options, value, onValue, hidden = true }) {
  const name = useId();
  return html`<fieldset class="segments">
    <legend class=${hidden ? "unseen" : ""}>${label}</legend>
    ${Object.entries(options).map(([key, text]) => html`
      <label key=${key}><input type="radio" name=${name} value=${key} checked=${key === value}
        onChange=${() => onValue(key)} /><span>${text}</span></label>`)}
  </fieldset>`;
}

const isOutside = ({ target, clientX: x, clientY: y }) => {
  const { left, right, top, bottom } = target.getBoundingClientRect();
  return x < left || x > right || y < top || y > bottom;
};

/** A dialog of the browser: keeps the focus in, gives it back, closes with Escape. */
export function Dialog({ label, onClose, className = "", children, focus = null }) {
  const ref = useRef(null);
  const away = useRef(false);
  useLayoutEffect(() => { // not an effect: keys that are pressed before the next frame are for it, too
    const dialog = ref.current;
    const before = document.activeElement;
    dialog.showModal();
    if (focus !== null) dialog.querySelector(focus)?.focus();
    document.documentElement.classList.add("still");
    return () => {
      away.current = true;
      dialog.close();
      if (document.querySelector("dialog[open]") === null) document.documentElement.classList.remove("still");
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true }); // what comes next may be elsewhere
    };
  }, []);
  // A second Escape closes a dialog whatever it says: it is told, and opened again if it has to stay.
  const closed = () => {
    if (away.current) return;
    onClose();
    setTimeout(() => { if (!away.current && !ref.current.open) ref.current.showModal(); }, 50);
  };
  return html`<dialog ref=${ref} class=${className} aria-label=${label} onClose=${closed}
      onCancel=${(event) => { if (event.target === ref.current) { event.preventDefault(); onClose(); } }}
      onPointerDown=${(event) => { if (event.target === ref.current && isOutside(event)) onClose(); }}>${children}</dialog>`;
}

/** Messages at the foot; they stay while the pointer or the focus is on them. */
export function Toasts() {
  const all = useSignal(toasts);
  return html`<div class="toasts">${all.map((one) => html`
    <div class=${`toast ${one.kind}`} key=${one.id}>
      ${one.kind === "failure" && html`<${Icon} name="warn" />`}
      <p>${one.text}</p>
      ${one.action && html`<button type="button" class="button" onClick=${() => { one.close(); one.action.run(); }}>${one.action.label}</button>`}
      <${Button} icon="close" label="Dismiss" kind="quiet" onClick=${one.close} />
    </div>`)}</div>`;
}

/** What screen readers are told. */
export function Spoken() {
  const { polite, urgent } = useSignal(spoken);
  return html`<div class="unseen">
    <p role="status" aria-live="polite">${polite}</p>
    <p role="alert" aria-live="assertive">${urgent}</p>
  </div>`;
}

/** A full-page word where there is nothing else: what it is and what to do. */
export const Empty = ({ title, children, icon = "image" }) => html`
  <div class="empty"><${Icon} name=${icon} /><h2>${title}</h2><div>${children}</div></div>`;
