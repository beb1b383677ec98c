// Zoom and pan: where an image lies in a window. `scale` is pixels of the screen a pixel of the image.

const LARGEST = 32;

/** The whole image in the middle. */
export function fitted(image, box, margin = 24) {
  const scale = Math.min((box.width - 2 * margin) / image.width, (box.height - 2 * margin) / image.height);
  const good = Math.max(0.02, Math.min(scale, 4));
  return { scale: good, x: (box.width - image.width * good) / 2, y: (box.height - image.height * good) / 2 };
}

/** Nearer or farther by `factor`, with the point (x, y) of the window where it is. */
export function zoomed(sight, factor, { x, y }, image, box) {
  const scale = Math.min(LARGEST, Math.max(fitted(image, box).scale / 4, sight.scale * factor));
  const real = scale / sight.scale;
  return within({ scale, x: x - (x - sight.x) * real, y: y - (y - sight.y) * real }, image, box);
}

export const moved = (sight, dx, dy, image, box) => within({ ...sight, x: sight.x + dx, y: sight.y + dy }, image, box);

/** Never wholly out of the window. */
function within(sight, image, box) {
  const edge = 48;
  const held = (at, size, room) => Math.min(room - edge, Math.max(edge - size, at));
  return {
    ...sight, x: held(sight.x, image.width * sight.scale, box.width), y: held(sight.y, image.height * sight.scale, box.height),
  };
}

/** A point of the window on the image. */
export const onImage = (sight, { x, y }) => ({ x: (x - sight.x) / sight.scale, y: (y - sight.y) / sight.scale });
