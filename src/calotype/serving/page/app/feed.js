// Jobs on the page, newest first: how far they are and what came of them.
import { html, useSignal, useState, useEffect, plural, duration, sizeText, toast } from "./ui.js";
import { jobs, jobsState, isActive, cancel, retry, sendNow, dismiss, finish, submit, filesOf, draft } from "./jobs.js";
import { familyOf, takeRequest, bare, setSource, finishOf, form } from "./settings.js";
import { modelNamed, smallest, server, capabilities } from "./server.js";
import { viewer, go } from "./places.js";
import { opened } from "./intake.js";
import { Button, Empty } from "./controls.js";
import { Tile, progressOf } from "./tile.js";
import { Icon } from "./icons.js";

const isDraft = (job) => (job.request.kind ?? "sample") === "sample" && job.request.size
  && Math.max(...job.request.size) === smallest(modelNamed(job.request.model ?? null)) && job.images.length > 1;

/** Jobs that finish a draft stand in its place: {key of the draft: Map(seed -> {job, image})}. */
export function placed(all) {
  const drafts = all.filter(isDraft).map((job) => ({ job, family: familyOf(job.request), seeds: new Map(job.images.map((one) => [one.seed, one])) }));
  const over = new Map();
  const within = new Set();
  for (const job of [...all].reverse()) { // an older one gives way to a newer
    if (job.images.length !== 1 || isDraft(job) || (job.request.kind ?? "sample") !== "sample") continue;
    const [image] = job.images;
    const seed = image.seed ?? (job.request.seed === undefined ? null : String(job.request.seed));
    const draft = drafts.find((one) => one.seeds.has(seed) && one.family === familyOf(job.request));
    if (draft === undefined || ["refused", "cancelled"].includes(job.state)) continue;
    if (!over.has(draft.job.key)) over.set(draft.job.key, new Map());
    over.get(draft.job.key).set(seed, { job, image });
    within.add(job.key);
  }
  return { over, within };
}

const KINDS = { image_to_image: "changed", inpaint: "filled", vary: "varied", upscale: "enlarged" };

function metaOf(job) {
  const { request, images } = job;
  const size = images.find((one) => one.width) ?? (request.size && { width: request.size[0], height: request.size[1] });
  return [
    isDraft(job) ? plural(images.length, "draft") : plural(images.length, "image"), KINDS[request.kind],
    size && sizeText(size.width, size.height), images[0]?.seed && `seed ${images[0].seed}`,
    request.class, request.model && request.model !== "default" && request.model, request.variety && `variety ${Math.round(request.variety * 100)} %`, request.exact && "exact",
  ].filter(Boolean).join(" · ");
}

function Clock({ job, running }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), 500);
    return () => clearInterval(timer);
  }, []);
  const now = Date.now();
  if (job.state === "held") return html`${Math.max(0, Math.ceil((job.until - now) / 1000))} s`;
  if (!running) return job.eta ? html`about ${duration(Math.max(1, job.eta - (now - job.told) / 1000))}` : null;
  const value = running.value;
  const spent = (now - job.began) / 1000;
  if (value < 0.04 || spent < 0.4) return job.eta ? html`about ${duration(job.eta)} left` : null;
  return html`about ${duration(Math.max(1, spent * (1 - value) / value))} left`;
}

const HELD = { full: "The queue is full. It is sent again in", stopping: "The server is stopping. It is sent again in", offline: "The server cannot be reached. It is sent again in" };
const ENDS = { cancelled: "Cancelled.", interrupted: "Interrupted: the server was stopped while it ran.", failed: "Failed", refused: "Not accepted" };

function State({ job }) {
  if (job.state === "held") return html`<p class="state held"><${Icon} name="warn" /><span>${HELD[job.held]} <${Clock} job=${job} />.</span></p>`;
  if (job.state in ENDS) {
    const reason = ["failed", "refused"].includes(job.state) ? `${ENDS[job.state]}: ${job.error ?? "no reason was given"}.`.replace("..", ".") : ENDS[job.state];
    return html`<p class=${`state ${job.state}`}><${Icon} name=${job.state === "cancelled" ? "stop" : "warn"} /><span>${reason}</span></p>`;
  }
  if (job.state === "done" && job.took) return html`<p class="state done"><${Icon} name="check" /><span>Made in ${duration(job.took)}.</span></p>`;
  if (!isActive(job)) return null;
  const value = job.images.reduce((sum, one) => sum + (progressOf(one) ?? 0), 0) / Math.max(1, job.images.length);
  if (job.state === "running") {
    const stage = job.images.find((one) => one.state === "running" && one.stage)?.stage;
    return html`<div class="state running"><progress max="1" value=${value} aria-label="Progress"></progress>
      <span>${Math.round(value * 100)} %${stage ? ` · ${stage}²` : ""} · <${Clock} job=${job} running=${{ value }} /></span></div>`;
  }
  const place = job.state === "sending" ? "Sending …" : job.position ? `Waiting, number ${job.position + 1} in line` : "Waiting, next in line";
  return html`<p class="state waiting"><i class="dot"></i><span>${place}${job.eta ? " · " : ""}<${Clock} job=${job} /></span></p>`;
}

const KEPT_NO_MORE = "its source is not kept here any more: bring the image once more, then press the button.";

/** The button that was pressed is gone: the keyboard goes on from the jobs. */
const focusJobs = () => document.getElementById("main")?.focus({ preventScroll: true });

async function again(job) {
  if (await retry(job)) { focusJobs(); return; }
  takeRequest(job.request);
  toast(`Its settings are back in the form; ${KEPT_NO_MORE}`, { seconds: 12 });
}

async function reuse(job) {
  const edits = takeRequest({ ...job.request, seed_text: job.images[0]?.seed ?? null });
  const files = edits ? await filesOf(job) : null;
  setSource(files === null ? null : await opened(files.source, "Source of before"));
  toast(edits && files === null ? `Its settings are back in the form; ${KEPT_NO_MORE}` : "Settings are back in the form, the seed is locked.");
  document.querySelector(".prompt")?.focus();
}

function finishAll(job, seeds, clear) {
  for (const image of job.images) if (seeds.has(image.seed)) finish(job, image);
  clear(new Set());
}

function JobCard({ job, over }) {
  const [chosen, setChosen] = useState(new Set());
  const drafts = isDraft(job);
  const active = isActive(job);
  const caption = job.request.prompt ?? "";
  const flip = (seed) => setChosen((now) => { const next = new Set(now); if (!next.delete(seed)) next.add(seed); return next; });
  const list = () => job.images.map((one) => over?.get(one.seed)?.image ?? one).map((one) => (one.state === "done" ? one
    : job.images.find((draft) => draft.seed === one.seed))).filter((one) => one?.state === "done")
    .map((one) => ({ ...one, job: job.id, prompt: caption, request: { ...job.request, size: [one.width, one.height], n: 1 }, model: job.request.model }));
  const open = (image) => viewer.set({ list, id: image.id });
  const finishers = [...over?.values() ?? []].map((one) => one.job).filter(isActive);
  const finishing = finishers.length;
  const waiting = finishers.filter((one) => one.state !== "running").length;
  const large = drafts ? finishOf({ ...job.request }, "0").size : null;
  const columns = drafts ? 3 : job.images.length === 1 ? 1 : job.images.length <= 4 ? 2 : 4;
  return html`<article class=${`job ${job.state} ${drafts ? "drafts" : ""}`} aria-label=${`${metaOf(job)}: ${caption || "no caption"}`}>
    <header>
      <div class="job-words"><h3>${caption || html`<em>No caption</em>`}</h3><p class="meta">${metaOf(job)}</p></div>
      <div class="job-buttons">
        ${job.state === "held" && html`<${Button} kind="small" icon="again" onClick=${() => sendNow(job)}>Send now<//>`}
        ${active && html`<${Button} kind="small" icon="close" disabled=${job.stopping} onClick=${() => cancel(job)}>${job.id === null ? "Discard" : "Cancel"}<//>`}
        ${["failed", "refused", "cancelled", "interrupted"].includes(job.state) && html`<${Button} kind="small" icon="again" onClick=${() => again(job)}>Retry<//>`}
        ${job.state === "done" && drafts && html`<${Button} kind="small" icon="spark" onClick=${() => submit(other(job))}>Nine more<//>`}
        ${job.state !== "sending" && html`<${Button} kind="quiet" icon="reuse" label="Reuse these settings" onClick=${() => reuse(job)} />`}
        ${!active && html`<${Button} kind="quiet" icon="close" label="Take this off the page; images stay in the library" onClick=${() => { dismiss(job); focusJobs(); }} />`}
      </div>
    </header>
    <${State} job=${job} />
    ${active && job.warning && html`<p class="state held"><${Icon} name="warn" /><span>It may not be finished: ${job.warning}.</span></p>`}
    ${(job.state === "done" || (active && job.state !== "held") || job.images.some((one) => one.state === "done")) && html`
    <ul class="tiles" style=${{ "--columns": columns }}>
      ${job.images.map((image, index) => html`<${Tile} key=${index} job=${job} image=${image} caption=${caption} number=${job.images.length > 1 ? index + 1 : null}
        over=${over?.get(image.seed) ?? null} onOpen=${() => open(over?.get(image.seed)?.image?.state === "done" ? over.get(image.seed).image : image)}
        chosen=${chosen.has(image.seed)} onChoose=${drafts ? () => flip(image.seed) : undefined} />`)}
    </ul>`}
    ${drafts && job.state === "done" && html`<footer class="row">
      <${Button} kind=${chosen.size ? "main" : ""} disabled=${chosen.size === 0} onClick=${() => finishAll(job, chosen, setChosen)}>
        ${chosen.size ? `Finish ${chosen.size} at ${sizeText(...large)}` : `Finish at ${sizeText(...large)}`}<//>
      ${finishing > 0 && html`<span class="hint">${finishing} being finished${waiting ? `, ${waiting} of them in line` : ""}.</span>`}
      <span class="hint">${chosen.size ? "By the same seeds, here in their places." : "Choose the drafts you like."}</span>
    </footer>`}
  </article>`;
}

// For those who do not know yet what to write; what stands behind the commas needs a model that knows it.
const EXAMPLES = ["a red fox, on a dark green background", "an owl, noto style, on a yellow background", "a rocket, 3d render style, on a light blue background", "a sailing boat"];

function Examples({ known }) {
  const captions = known?.styles?.length ? EXAMPLES : EXAMPLES.map((one) => one.split(",")[0]);
  return html`<div class="examples" role="group" aria-label="Nine drafts of an example">${captions.map((one) => html`
    <button key=${one} type="button" class="chip" onClick=${() => { form.patch({ prompt: one }); draft(); }}><${Icon} name="spark" />${one}</button>`)}</div>`;
}

const other = (job) => { const { seed, ...rest } = bare(job.request); return rest; };

export function Feed() {
  const all = useSignal(jobs);
  const state = useSignal(jobsState);
  const { state: at } = useSignal(server);
  const known = useSignal(capabilities);
  const { over, within } = placed(all);
  const shown = all.filter((job) => !within.has(job.key));
  if (shown.length > 0) return html`<div class="feed">${shown.map((job) => html`<${JobCard} key=${job.key} job=${job} over=${over.get(job.key)} />`)}</div>`;
  if (state === "loading" && at !== "offline") return html`<div class="feed" aria-busy="true"><div class="job skeleton"><i></i><i></i><b></b></div></div>`;
  if (at === "offline") return html`<${Empty} icon="warn" title="The server cannot be reached">Start it with <code>calotype serve</code>; this page goes on by itself.<//>`;
  return html`<${Empty} icon="spark" title="What do you want to see?">
    <p>Write a caption and generate it<span class="by-key"> (<kbd>Ctrl</kbd> <kbd>Enter</kbd>)</span>, or look at nine quick drafts first and finish the ones you like.</p>
    <p>To see what it does, press one of these:</p>
    <${Examples} known=${known} />
    <p><${Button} kind="link" onClick=${() => go("library")}>Earlier images are in the library<//></p><//>`;
}
