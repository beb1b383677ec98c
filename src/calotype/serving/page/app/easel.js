// The editor's hand: turns pointers and keys into strokes on a canvas, and says where things are.
import { signal, announce } from "./ui.js";
import { createPainting, paint, repaint, boxOf } from "./mask.js";
import { fitted, zoomed, moved, onImage } from "./sight.js";
import { pointersOf } from "./pointers.js";

const CLICK = 5; // pixels of the screen: what moves less was no drag
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Everything about painting on one image; `state` is what the page shows of it. */
export function createEasel(image) {
  const painting = createPainting(image.width, image.height);
  const state = signal({
    tool: "brush", size: Math.max(8, Math.round(Math.min(image.width, image.height) / 8)), erase: false,
    sight: null, hover: null, cursor: null, box: null, down: false, canUndo: false, canRedo: false, empty: true,
  });
  let context = null;
  let area = null; // the window onto the image
  let stroke = null;
  let corner = null; // first corner of a box
  let opposite = null; // and where the other one is
  let press = null; // where a pointer went down, in the window
  let spaceHeld = false;
  let spaceMoved = false; // Space and a pointer moved the image: then Space paints nothing

  const set = (part) => state.patch(part);
  const room = () => { const { width, height } = area.getBoundingClientRect(); return { width, height }; };
  const toImage = (point) => onImage(state.value.sight, point);
  const told = () => set({ canUndo: painting.canUndo, canRedo: painting.canRedo, empty: painting.strokes.length === 0 });
  painting.listen(told);

  function commit(one) {
    painting.add(one);
    paint(context, one, painting);
  }

  // ---- Painting, by whatever hand.

  function stretch(point) {
    opposite = point;
    set({ box: boxOf(corner, point) });
  }

  function begin(point, erase = state.value.erase) {
    if (state.value.tool === "box") {
      if (corner === null) corner = { ...point, erase };
      stretch(point);
      return;
    }
    stroke = { kind: "brush", size: state.value.size, erase, points: [point] };
    paint(context, stroke, painting);
  }

  function extend(points) {
    if (corner !== null) { stretch(points.at(-1)); return; }
    if (stroke === null) return;
    const from = stroke.points.at(-1);
    stroke.points.push(...points);
    paint(context, { ...stroke, points: [from, ...points] }, painting);
  }

  function finish() {
    if (corner !== null) {
      const box = { ...boxOf(corner, opposite), erase: corner.erase };
      corner = null;
      set({ box: null });
      if (box.width > 0 && box.height > 0) commit(box);
      return box;
    }
    if (stroke !== null) painting.add(stroke);
    stroke = null;
    return null;
  }

  function giveUp() {
    stroke = null;
    corner = null;
    press = null;
    set({ box: null, down: false });
    repaint(context, painting);
  }

  // ---- Pointers.

  const act = {
    point(event) { const box = area.getBoundingClientRect(); return { x: event.clientX - box.left, y: event.clientY - box.top }; },
    tool: () => state.value.tool,
    spaceHeld: () => spaceHeld,
    begin(point, event) {
      press = point;
      set({ cursor: null, down: false });
      const eraser = event.pointerType === "pen" && (event.buttons & 32) !== 0; // the pen's other end
      const waiting = corner !== null;
      begin(toImage(point), state.value.erase || eraser);
      if (waiting) extend([toImage(point)]);
    },
    go: (points) => extend(points.map(toImage)),
    end(event) {
      if (corner !== null) {
        const now = act.point(event);
        const clicked = press !== null && Math.hypot(now.x - press.x, now.y - press.y) < CLICK;
        const first = state.value.box.width * state.value.sight.scale < CLICK && state.value.box.height * state.value.sight.scale < CLICK;
        if (clicked && first) { announce("First corner is set: click the opposite one."); return; } // two clicks instead of a drag
      }
      finish();
      press = null;
    },
    giveUp,
    hover(point) {
      const at = point === null ? null : toImage(point);
      set({ hover: at });
      if (at !== null && corner !== null && !state.value.cursor) stretch(at);
    },
    move(dx, dy) {
      spaceMoved ||= spaceHeld;
      set({ sight: moved(state.value.sight, dx, dy, image, room()) });
    },
    zoom: (factor, at) => set({ sight: zoomed(state.value.sight, factor, at, image, room()) }),
  };

  // ---- Keys: arrows move the brush or the corner, Space puts it down and lifts it.

  function shift([dx, dy], fine) {
    const { cursor, tool, size } = state.value;
    const from = cursor ?? { x: image.width / 2, y: image.height / 2 };
    const step = fine ? 1 : Math.max(1, Math.round(tool === "box" ? Math.min(image.width, image.height) / 16 : size / 2));
    const limit = (at, most) => Math.min(most + size, Math.max(-size, at));
    const to = { x: limit(from.x + dx * step, image.width), y: limit(from.y + dy * step, image.height) };
    set({ cursor: to });
    if (state.value.down) extend([to]);
    show(to);
  }

  /** Keep the keyboard's brush in sight. */
  function show(point) {
    const { sight } = state.value;
    const { width, height } = room();
    const at = { x: sight.x + point.x * sight.scale, y: sight.y + point.y * sight.scale };
    const by = (place, most) => (place < 20 ? 20 - place : place > most - 20 ? most - 20 - place : 0);
    if (by(at.x, width) || by(at.y, height)) act.move(by(at.x, width), by(at.y, height));
  }

  function putDown() {
    const at = state.value.cursor ?? { x: image.width / 2, y: image.height / 2 };
    set({ cursor: at });
    const words = `${Math.round(at.x)}, ${Math.round(at.y)}`;
    if (!state.value.down) {
      begin(at);
      set({ down: true });
      announce(state.value.tool === "box" ? `First corner at ${words}. Arrows move the other one.` : `Brush down at ${words}.`);
    } else {
      const box = finish();
      set({ down: false });
      announce(box === null ? `Brush up at ${words}.` : `Rectangle of ${box.width} by ${box.height} pixels.`);
    }
  }

  function onKeyDown(event) {
    if (event.ctrlKey || event.metaKey) return;
    if (event.key in ARROWS) shift(ARROWS[event.key], event.shiftKey);
    else if (event.key === "Enter") putDown();
    else if (event.key === " ") { if (!event.repeat) { spaceHeld = true; spaceMoved = false; } }
    else if (event.key === "Escape" && (state.value.down || corner !== null)) giveUp();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function onKeyUp(event) {
    if (event.key !== " ") return;
    spaceHeld = false;
    if (press === null && !spaceMoved) putDown();
    event.preventDefault();
  }

  return {
    image, painting, state, set,
    attach(canvas, window_) {
      context = canvas.getContext("2d", { willReadFrequently: true });
      area = window_;
      repaint(context, painting);
      if (state.value.sight === null) set({ sight: fitted(image, room()) });
    },
    get context() { return context; },
    choose(tool, erase = state.value.erase) { giveUp(); set({ tool, erase }); },
    fit: () => set({ sight: fitted(image, room(), 24) }),
    zoomBy(factor) { const { width, height } = room(); act.zoom(factor, { x: width / 2, y: height / 2 }); },
    moveBy: (dx, dy) => act.move(dx, dy),
    resize(size) { set({ size: Math.round(Math.min(1024, Math.max(2, size))) }); },
    invert() { commit({ kind: "invert" }); announce("Inverted."); },
    clear() { if (painting.strokes.length) { commit({ kind: "clear" }); announce("Nothing is painted."); } },
    addBox(box) { commit({ kind: "box", ...box, erase: state.value.erase }); },
    undo() { painting.undo(); repaint(context, painting); announce("Undone."); },
    redo() { painting.redo(); repaint(context, painting); announce("Done again."); },
    giveUp, onKeyDown, onKeyUp, pointers: pointersOf(act),
  };
}
