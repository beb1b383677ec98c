// Sources and masks of edits, kept by this browser: a tab that is opened later can ask once more.

const MOST = 12; // jobs; the oldest go
let opening = null;

const answered = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

function database() {
  if (opening === null) {
    const asked = indexedDB.open("calotype", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("files", { keyPath: "id" });
    opening = answered(asked);
  }
  return opening;
}

const store = async (mode) => (await database()).transaction("files", mode).objectStore("files");

/** Keep the files of a job; where the browser keeps nothing they last as long as the tab. */
export async function keepFiles(id, { source, mask }) {
  try {
    const files = await store("readwrite");
    await answered(files.put({ id, source, mask, at: Date.now() }));
    const all = await answered(files.getAll());
    for (const old of all.sort((a, b) => b.at - a.at).slice(MOST)) files.delete(old.id);
  } catch { /* storage is off or full */ }
}

/** The {source, mask} of a job, or null. */
export async function keptFiles(id) {
  try {
    return (await answered((await store("readonly")).get(id))) ?? null;
  } catch {
    return null;
  }
}

export async function forgetFiles(id) {
  try {
    (await store("readwrite")).delete(id);
  } catch { /* nothing was kept */ }
}
