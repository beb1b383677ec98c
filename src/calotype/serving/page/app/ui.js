// What every part of the page is made with: html, hooks, signals, storage, words for the ear.
import { h, render, Fragment } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { render, Fragment };
export {
  useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useId,
} from "../vendor/hooks.js";
import { useState, useLayoutEffect } from "../vendor/hooks.js";

export const html = htm.bind(h);

/** A value that parts of the page look at; setting it shows it anew wherever it is used. */
export function signal(value) {
  const listeners = new Set();
  return {
    get value() { return value; },
    set(next) {
      const now = typeof next === "function" ? next(value) : next;
      if (Object.is(now, value)) return;
      value = now;
      for (const listener of [...listeners]) listener();
    },
    patch(part) { this.set({ ...value, ...part }); },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The value of a signal, or of what `choose` takes from it. */
export function useSignal(source, choose = (value) => value) {
  const chosen = choose(source.value);
  const [, again] = useState(0);
  useLayoutEffect(() => {
    let last = chosen;
    const look = () => {
      const now = choose(source.value);
      if (!Object.is(now, last)) { last = now; again((count) => count + 1); }
    };
    look();
    return source.subscribe(look);
  }, [source]);
  return chosen;
}

/** A signal that this browser remembers; where storage is off it lasts as long as the tab. */
export function remembered(name, value) {
  const key = `calotype.${name}`;
  try {
    const kept = JSON.parse(localStorage.getItem(key));
    if (kept !== null) value = isRecord(value) && isRecord(kept) ? { ...value, ...kept } : kept;
  } catch { /* nothing kept, or storage is off */ }
  const source = signal(value);
  source.subscribe(() => {
    try { localStorage.setItem(key, JSON.stringify(source.value)); } catch { /* storage is off */ }
  });
  return source;
}

export const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// ---- Messages: shown for a while at the foot, and said by screen readers.

export const toasts = signal([]);
export const spoken = signal({ polite: "", urgent: "" });
let count = 0;

/** Say something to those who do not see the page change. */
export function announce(text, { urgent = false } = {}) {
  const key = urgent ? "urgent" : "polite";
  // The same words twice would not be read twice: a no-break space makes them differ.
  const same = spoken.value[key] === text;
  spoken.patch({ [key]: same ? `${text}\u00a0` : text });
}

/** Show a message; `action` is {label, run}. Returns what takes it away. */
export function toast(text, { action = null, seconds = 7, kind = "info" } = {}) {
  const id = ++count;
  const close = () => toasts.set((all) => all.filter((one) => one.id !== id));
  toasts.set((all) => [...all.slice(-3), { id, text, action, kind, close }]);
  announce(text, { urgent: kind === "failure" });
  if (seconds) setTimeout(close, seconds * 1000);
  return close;
}

// ---- Words and numbers.

export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds < 1.5) return "a second";
  if (seconds < 55) return `${Math.round(seconds)} s`;
  if (seconds < 90) return "a minute";
  if (seconds < 3300) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** 1024 × 1024 or 1024². */
export const sizeText = (width, height) => (width === height ? `${width}²` : `${width} × ${height}`);

/** Whether a key pressed here would write. */
export const writes = (node) =>
  node instanceof Element && (node.isContentEditable ||
    node.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range], [type=file])"));

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
