// What the server is and can do: capabilities, and its status every few seconds.
import { signal, announce } from "./ui.js";
import { api } from "./api.js";

const SECONDS = { visible: 4, hidden: 30, offline: 2 };

export const capabilities = signal(null);
/** state: opening, ready, starting, restarting or offline; queue, keeping, kept, store, version. */
export const server = signal({ state: "opening", keeping: true, kept: "page", store: "open", queue: null, restarts: 0 });

export const modelNamed = (name) => {
  const models = capabilities.value?.models ?? [];
  return models.find((model) => model.name === name) ?? models[0] ?? null;
};

/** What the server takes at most; whatever it leaves out is as the documentation has it. */
export function limits() {
  const said = capabilities.value?.limits ?? {};
  return {
    prompt: said.prompt ?? 32_000, n: said.n ?? 32, steps: said.steps ?? 256,
    side: said.side ?? [16, 2048],
    uploadBytes: said.upload_bytes ?? 20 * 2 ** 20, uploadPixels: said.upload_pixels ?? 16_000_000,
  };
}

/** Sizes that are offered, as [width, height]: the server's for its first model, else the stages'. */
export function offeredSizes(model) {
  const { sizes, models } = capabilities.value ?? {};
  const own = model?.stages.map((stage) => stage.resolution) ?? [];
  const sides = sizes !== undefined && (model === models[0] || models.length === 0) ? sizes : own;
  return sides.map((side) => (Array.isArray(side) ? side : [side, side]));
}

export const smallest = (model) => model?.stages[0]?.resolution ?? 64;
export const largest = (model) => model?.stages.at(-1)?.resolution ?? 1024;

/** The sampling settings of a stage, whatever a server leaves out. */
export const settingsOf = (stage) => ({
  steps: stage.steps, sampler: stage.sampler, guidance_weight: stage.guidance_weight, ...stage.settings,
});

/** The classes that a request of a kind may name, and whether it has to name one. */
export function classesOf(model, kind) {
  const sampling = model?.stages.slice(kind === "upscale" && model.edits ? 1 : 0) ?? []; // not the base
  const told = sampling.map((stage) => stage.class);
  return { names: told.some(Boolean) ? model.classes : [], required: told.includes("required") };
}

/** The variety of a model's base, where it samples from a draft: there seeds differ in little without. */
export function ownVariety(model) {
  const base = model?.stages[0];
  if (base === undefined || !(model.tunable ?? []).includes("variety")) return null;
  const { start, variety = 0 } = settingsOf(base);
  return start === "draft" ? variety : null;
}

let timer = null;
let seenPid = null;

async function loadCapabilities() {
  try {
    const got = await api.capabilities();
    if (got?.models?.length) capabilities.set(got);
  } catch { /* the next look tries again */ }
}

async function look() {
  clearTimeout(timer);
  const before = server.value.state;
  const abort = new AbortController();
  const tooLong = setTimeout(() => abort.abort(), 10_000);
  try {
    const { engine, queue = null, kept = "page", keeping = true, store = "open", version, draining = false } = await api.status(abort.signal);
    const state = draining ? "draining" : engine?.state ?? "starting";
    const restarts = engine?.restarts ?? 0;
    server.patch({ state, queue, kept, keeping, store, version, device: engine?.device, restarts });
    if (capabilities.value === null || (state === "ready" && engine?.pid !== seenPid)) {
      seenPid = engine?.pid;
      await loadCapabilities();
    }
  } catch {
    server.patch({ state: "offline" });
  } finally {
    clearTimeout(tooLong);
  }
  const { state } = server.value;
  if (state !== before && before !== "opening") {
    if (state === "offline") announce("The server cannot be reached.", { urgent: true });
    else if (state === "restarting") announce("The engine is restarting.");
    else if (state === "ready") announce("The server is ready.");
  }
  const pace = state === "offline" || state === "restarting" || state === "starting"
    ? SECONDS.offline : document.hidden ? SECONDS.hidden : SECONDS.visible;
  timer = setTimeout(look, pace * 1000);
}

/** Look again in a moment: something has ended. */
export function lookSoon() {
  clearTimeout(timer);
  timer = setTimeout(look, 300);
}

/** Look now, and from now on. */
export const watchServer = look;
document.addEventListener("visibilitychange", () => { if (!document.hidden && timer !== null) look(); });
addEventListener("online", () => timer !== null && look());
