// What the server's state means for somebody who wants images, and the key that it may ask for.
import { html, signal, useSignal, useState, useRef, useEffect } from "./ui.js";
import { server } from "./server.js";
import { api, onLogin } from "./api.js";
import { go } from "./places.js";
import { Button, Dialog, Field } from "./controls.js";
import { Icon } from "./icons.js";

const waiting = signal(null); // resolves the promise of those who need a key
onLogin(() => new Promise((resolve) => waiting.set(() => resolve)));

const WORDS = {
  offline: ["The server cannot be reached.", "If it was stopped, start it again with calotype serve. What you start here is sent when it is back."],
  starting: ["The engine is starting.", "You can already ask for images: they wait in line."],
  restarting: ["The engine is restarting.", "Nothing is lost: running images begin again by themselves, the others keep their places."],
  draining: ["The server is stopping.", "Running images are finished; new ones are sent when it is back."],
};

function Banner({ kind, title, children }) {
  return html`<div class=${`banner ${kind}`}><${Icon} name="warn" /><p><b>${title}</b> ${children}</p></div>`;
}

export function Banners() {
  const { state, keeping, kept, store, queue } = useSignal(server);
  const full = queue !== null && queue.capacity > 0 && queue.waiting >= queue.capacity;
  return html`<section class="banners" aria-label="State of the server">
    ${WORDS[state] && html`<${Banner} kind=${state} title=${WORDS[state][0]}>${WORDS[state][1]}<//>`}
    ${!keeping && kept !== "none" && state !== "offline" && html`<${Banner} kind="disk" title="The disk is full: new images are not kept.">
      Download what you want to have. ${store === "unopened"
        ? "Those of before are safe, but not to be seen: free space on the disk and start the server again."
        : html`To make room, free space on the disk or <button type="button" class="link" onClick=${() => go("library")}>delete images</button>.`}<//>`}
    ${full && state === "ready" && html`<${Banner} kind="full" title="The queue is full.">What you start now waits here and is sent when there is room.<//>`}
  </section>`;
}

const PILLS = { ready: "Ready", opening: "Opening", offline: "Offline", starting: "Starting", restarting: "Restarting", draining: "Stopping" };

export function StatusPill() {
  const { state, queue, device, version } = useSignal(server);
  const busy = state === "ready" && queue !== null && queue.active + queue.waiting > 0;
  const words = busy ? `${queue.active} running${queue.waiting ? `, ${queue.waiting} waiting` : ""}` : PILLS[state] ?? state;
  return html`<span class=${`pill ${busy ? "busy" : state}`} title=${[device, version && `calotype ${version}`].filter(Boolean).join(" · ") || undefined}><i></i><span>${words}</span></span>`;
}

/** The dialog that asks for a key of the server. */
export function Login() {
  const resolve = useSignal(waiting);
  const [fault, setFault] = useState(null);
  const input = useRef(null);
  useEffect(() => setFault(null), [resolve]);
  if (resolve === null) return null;
  const send = async (event) => {
    event.preventDefault();
    try {
      await api.login(input.current.value.trim());
      waiting.set(null);
      resolve();
    } catch (failure) {
      setFault(failure.kind === "login" || failure.kind === "refused" ? "The server does not know this key." : `${failure.message}.`);
      input.current.select();
    }
  };
  return html`<${Dialog} label="Log in" className="login" onClose=${() => {}} focus="input">
    <h2>This server asks for a key</h2>
    <p class="hint">Whoever runs it makes one with <code>calotype serve --new-key NAME</code>. This browser then stays logged in.</p>
    <form onSubmit=${send}><${Field} label="Key" fault=${fault}>${(ids) => html`<input ref=${input} type="password" autocomplete="current-password" ...${ids} required />`}<//>
      <${Button} kind="main" type="submit">Log in<//></form>
  <//>`;
}
