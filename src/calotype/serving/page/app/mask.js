// What is painted, as a list of strokes on an image: undo takes the last one off the list. No page in here.

/** A painting of `width` x `height` pixels. Coordinates are the image's; they may lie outside it. */
export function createPainting(width, height) {
  let done = [];
  let undone = [];
  const listeners = new Set();
  const tell = () => { for (const listener of listeners) listener(); };
  return {
    width, height,
    get strokes() { return done; },
    get canUndo() { return done.length > 0; },
    get canRedo() { return undone.length > 0; },
    /** Add a stroke: {kind: "brush", points, size, erase}, {kind: "box", x, y, width, height, erase}, {kind: "invert"} or {kind: "clear"}. */
    add(stroke) { done = [...done, stroke]; undone = []; tell(); },
    undo() { if (done.length) { undone = [...undone, done.at(-1)]; done = done.slice(0, -1); tell(); } },
    redo() { if (undone.length) { done = [...done, undone.at(-1)]; undone = undone.slice(0, -1); tell(); } },
    listen(listener) { listeners.add(listener); return () => listeners.delete(listener); },
  };
}

const stripes = new WeakMap(); // context -> pattern

/** What the mask is shown with: two colours, so that it is seen on any image. Its alpha alone counts. */
function stripesOf(context, { width, height }) {
  if (!stripes.has(context)) {
    const side = 2 * Math.max(4, Math.round(Math.max(width, height) / 100));
    const tile = document.createElement("canvas");
    tile.width = tile.height = side;
    const on = tile.getContext("2d");
    on.fillStyle = "#d6006c";
    on.fillRect(0, 0, side, side);
    on.fillStyle = "#ffffff";
    for (const x of [-side / 2, side / 2]) { // diagonal bands that meet at the edges of the tile
      on.beginPath();
      for (const [a, b] of [[x, side], [x + side / 4, side], [x + side * 1.25, 0], [x + side, 0]]) on.lineTo(a, b);
      on.fill();
    }
    stripes.set(context, context.createPattern(tile, "repeat"));
  }
  return stripes.get(context);
}

/** Paint one stroke on a canvas whose alpha is the mask. */
export function paint(context, stroke, { width, height }) {
  context.save();
  context.fillStyle = context.strokeStyle = stripesOf(context, { width, height });
  context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
  if (stroke.kind === "brush") {
    const [first, ...rest] = stroke.points;
    context.lineWidth = stroke.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(first.x, first.y);
    for (const point of rest.length ? rest : [first]) context.lineTo(point.x, point.y + (rest.length ? 0 : 0.01));
    context.stroke();
  } else if (stroke.kind === "box") {
    context.fillRect(stroke.x, stroke.y, stroke.width, stroke.height);
  } else if (stroke.kind === "invert") {
    context.globalCompositeOperation = "xor";
    context.fillRect(0, 0, width, height);
  } else {
    context.clearRect(0, 0, width, height);
  }
  context.restore();
}

/** Paint all of it. */
export function repaint(context, painting) {
  context.clearRect(0, 0, painting.width, painting.height);
  for (const stroke of painting.strokes) paint(context, stroke, painting);
}

/** Which pixels are to change: 255 where at least half of a pixel was painted, else 0; and their fraction. */
export function pixelsOf(context, { width, height }) {
  const { data } = context.getImageData(0, 0, width, height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) {
    const value = data[at + 3] >= 128 ? 255 : 0;
    count += value === 255 ? 1 : 0;
    data[at] = data[at + 1] = data[at + 2] = value;
    data[at + 3] = 255;
  }
  return { pixels: new ImageData(data, width, height), fraction: count / (width * height) };
}

/** The mask as a PNG: white is to change, black is kept. */
export async function maskFile(context, painting) {
  const { pixels, fraction } = pixelsOf(context, painting);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: painting.width, height: painting.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return { blob, fraction, url: URL.createObjectURL(blob) };
}

/** A box with positive sides from two corners, in whole pixels. */
export function boxOf(a, b) {
  const x = Math.round(Math.min(a.x, b.x));
  const y = Math.round(Math.min(a.y, b.y));
  return { kind: "box", x, y, width: Math.round(Math.max(a.x, b.x)) - x, height: Math.round(Math.max(a.y, b.y)) - y };
}
