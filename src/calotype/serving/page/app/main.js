// Puts the page together.
import { html, render, remembered, useSignal, useEffect, useLayoutEffect, useRef } from "./ui.js";
import { view, go, help } from "./places.js";
import { watchServer } from "./server.js";
import { watchJobs } from "./streams.js";
import { jobs, activeJobs } from "./jobs.js";
import { listenForFiles, dragging } from "./intake.js";
import { listenForKeys, Help, singleKeys } from "./keys.js";
import { Button, Toasts, Spoken } from "./controls.js";
import { Composer } from "./composer.js";
import { Feed } from "./feed.js";
import { Library } from "./library.js";
import { Viewer } from "./viewer.js";
import { Compare } from "./compare.js";
import { Editor } from "./editor.js";
import { Banners, StatusPill, Login } from "./banners.js";
import { Icon } from "./icons.js";

const THEMES = { auto: ["auto", "Colours as the system has them"], light: ["sun", "Light colours"], dark: ["moon", "Dark colours"] };
const theme = remembered("theme-name", "auto");

function applyTheme() {
  const { value } = theme;
  try {
    if (value === "auto") localStorage.removeItem("calotype.theme");
    else localStorage.setItem("calotype.theme", value); // read by theme.js before the first paint
  } catch { /* storage is off */ }
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}
theme.subscribe(applyTheme);

function Theme() {
  const now = useSignal(theme);
  const [icon, label] = THEMES[now] ?? THEMES.auto;
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(now) + 1) % names.length];
  return html`<${Button} kind="quiet" icon=${icon} label=${`${label}; press for ${THEMES[next][1].toLowerCase()}`} onClick=${() => theme.set(next)} />`;
}

function Tab({ name, children }) {
  const now = useSignal(view);
  return html`<a href=${`#${name}`} class="tab" aria-current=${now === name ? "page" : undefined}
    onClick=${(event) => { event.preventDefault(); go(name); scrollTo(0, 0); }}>${children}</a>`;
}

function Head() {
  const running = useSignal(jobs, (all) => activeJobs(all).length);
  const keys = useSignal(singleKeys);
  useEffect(() => { document.title = running > 0 ? `(${running}) calotype` : "calotype"; }, [running]);
  return html`<header class="head">
    <h1><img src="page/icon.svg" alt="" width="24" height="24" /><span>calotype</span></h1>
    <nav aria-label="Views"><${Tab} name="create">Create${running > 0 && html`<span class="count" aria-label=${`, ${running} running`}>${running}</span>`}<//><${Tab} name="library">Library<//></nav>
    <div class="row head-end"><${StatusPill} /><${Theme} />
      <${Button} kind="quiet" icon="keys" label=${keys ? "Keys (?)" : "Keys"} onClick=${() => help.set(true)} /></div>
  </header>`;
}

function Dropping() {
  return useSignal(dragging) && html`<div class="dropping"><div><${Icon} name="image" /><b>Drop the image</b><span>Its settings are restored if it carries them; else it is worked on.</span></div></div>`;
}

/** What sticks to the top is as high as its banners are: everything below keeps clear of it. */
function useHeight() {
  const ref = useRef(null);
  useLayoutEffect(() => {
    const tell = () => document.documentElement.style.setProperty("--head", `${ref.current.offsetHeight}px`);
    tell();
    const observer = new ResizeObserver(tell);
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return ref;
}

function Page() {
  const now = useSignal(view);
  const measured = useHeight();
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>To the images</a>
    <div class="masthead" ref=${measured}><${Head} /><${Banners} /></div>
    <div class=${`body ${now}`}>
      <div class="side" hidden=${now !== "create"}><${Composer} /></div>
      <main id="main" tabindex="-1">${now === "create" ? html`<section aria-label="Jobs"><h2 class="unseen">Jobs</h2><${Feed} /></section>` : html`<${Library} />`}</main>
    </div>
    <${Viewer} /><${Editor} /><${Compare} /><${Help} /><${Login} />
    <${Dropping} /><${Toasts} /><${Spoken} />`;
}

const root = document.getElementById("page");
root.textContent = "";
render(html`<${Page} />`, root);
listenForFiles();
listenForKeys();
watchServer();
watchJobs();
