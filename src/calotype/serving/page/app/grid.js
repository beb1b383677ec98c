// A grid of ten thousand images that holds only the rows in sight. Arrows move, one tab stop in all.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./ui.js";

const ROWS_AROUND = 3;

/** Which rows of a grid are in sight. */
export function rowsInSight({ top, height, row, rows }) {
  const first = Math.max(0, Math.floor(top / row) - ROWS_AROUND);
  const last = Math.min(rows, Math.ceil((top + height) / row) + ROWS_AROUND);
  return [Math.min(first, rows), Math.max(first, last)];
}

/** How many columns fit and how tall a row then is. */
export function columnsOf(width, least, gap) {
  const columns = Math.max(2, Math.floor((width + gap) / (least + gap)));
  return { columns, row: (width - gap * (columns - 1)) / columns + gap };
}

/**
 * @param items what is shown; `tile(item, index)` makes one; `onNear` is called near the end;
 * `total` is the number of items if all are there, else null.
 */
export function Grid({ items, tile, onNear, total, least = 168, gap = 10, label, at, onAt }) {
  const ref = useRef(null);
  const [shape, setShape] = useState({ columns: 1, row: 200, width: 0 });
  const [sight, setSight] = useState([0, 12]);
  const rows = Math.ceil(items.length / shape.columns);
  const now = useRef({});
  now.current = { shape, rows, sight };

  const look = () => {
    const { shape: { row }, rows: all, sight: before } = now.current;
    if (ref.current === null) return;
    const top = -ref.current.getBoundingClientRect().top;
    const next = rowsInSight({ top: Math.max(0, top), height: innerHeight, row, rows: all });
    if (next[0] !== before[0] || next[1] !== before[1]) setSight(next);
    if (next[1] >= all - 2) onNear();
  };

  useLayoutEffect(() => {
    const measure = () => {
      const { width } = ref.current.getBoundingClientRect();
      if (width > 0) setShape((before) => (before.width === width ? before : { ...columnsOf(width, width < 480 ? 104 : least, gap), width }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(ref.current);
    let asked = false;
    const onScroll = () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; look(); });
    };
    addEventListener("scroll", onScroll, { passive: true });
    addEventListener("resize", onScroll);
    return () => {
      observer.disconnect();
      removeEventListener("scroll", onScroll);
      removeEventListener("resize", onScroll);
    };
  }, []);
  useEffect(look);

  const move = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: shape.columns, ArrowUp: -shape.columns, Home: -at, End: items.length - 1 - at,
      PageDown: shape.columns * 3, PageUp: -shape.columns * 3 }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = Math.min(items.length - 1, Math.max(0, at + by));
    event.preventDefault();
    onAt(next);
    const row = Math.floor(next / shape.columns) * shape.row + ref.current.getBoundingClientRect().top;
    const head = 120; // what sticks to the top
    if (row < head) scrollBy(0, row - head);
    else if (row + shape.row > innerHeight - 60) scrollBy(0, row + shape.row - innerHeight + 60);
    requestAnimationFrame(() => requestAnimationFrame(() => ref.current?.querySelector(`[data-at="${next}"] .open`)?.focus({ preventScroll: true })));
  };

  const [first, last] = sight;
  const shown = items.slice(first * shape.columns, last * shape.columns);
  return html`<ul class="grid" ref=${ref} aria-label=${label} onKeyDown=${move}
      style=${{ height: `${Math.max(0, rows * shape.row - gap)}px` }}>
    ${shape.width > 0 && shown.map((item, index) => {
      const place = first * shape.columns + index;
      const row = Math.floor(place / shape.columns);
      const column = place % shape.columns;
      const side = shape.row - gap;
      return html`<li key=${item.id} data-at=${place} aria-posinset=${place + 1} aria-setsize=${total ?? -1}
        style=${{ width: `${side}px`, height: `${side}px`, transform: `translate(${column * shape.row}px, ${row * shape.row}px)` }}>
        ${tile(item, place, place === Math.min(at, items.length - 1))}</li>`;
    })}
  </ul>`;
}
