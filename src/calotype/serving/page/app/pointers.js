// Mouse, pen and fingers on the editor: one paints, two fingers zoom and move.

/**
 * What to do with pointers. `act` has sight(), setSight(fn(sight)), point(event) in the window,
 * begin(point), go(points), end(), giveUp(), hover(point|null) and tool(); returns handlers.
 */
export function pointersOf(act) {
  const down = new Map();
  let doing = null; // "paint", "pan" or "pinch"
  let last = null;

  const middle = () => {
    const [a, b] = [...down.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, far: Math.hypot(a.x - b.x, a.y - b.y) };
  };

  function pointerdown(event) {
    if (event.button > 1) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    down.set(event.pointerId, act.point(event));
    if (down.size === 2) {
      if (doing === "paint") act.giveUp();
      doing = "pinch";
      last = middle();
    } else if (down.size === 1) {
      const pans = event.button === 1 || act.tool() === "hand" || act.spaceHeld();
      doing = pans ? "pan" : "paint";
      last = act.point(event);
      if (doing === "paint") act.begin(last, event);
    }
    if (event.button === 1) event.preventDefault();
  }

  function pointermove(event) {
    const point = act.point(event);
    if (!down.has(event.pointerId)) { act.hover(event.pointerType === "touch" ? null : point); return; }
    down.set(event.pointerId, point);
    if (doing === "paint") {
      const all = event.getCoalescedEvents?.() ?? [];
      act.go((all.length ? all : [event]).map((one) => act.point(one)), event);
      act.hover(point);
    } else if (doing === "pan") {
      act.move(point.x - last.x, point.y - last.y);
      last = point;
    } else if (doing === "pinch" && down.size >= 2) {
      const now = middle();
      act.move(now.x - last.x, now.y - last.y);
      if (last.far > 0) act.zoom(now.far / last.far, now);
      last = now;
    }
  }

  function pointerup(event) {
    if (!down.delete(event.pointerId)) return;
    if (doing === "paint") act.end(event);
    if (down.size === 0) doing = null;
    else if (doing === "pinch") { doing = "pan"; [last] = down.values(); }
  }

  function pointercancel(event) {
    down.delete(event.pointerId);
    if (doing === "paint") act.giveUp();
    if (down.size === 0) doing = null;
  }

  function wheel(event) {
    event.preventDefault();
    const point = act.point(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey) act.move(-event.deltaY * lines - event.deltaX * lines, 0);
    else act.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), point);
  }

  return { pointerdown, pointermove, pointerup, pointercancel, wheel, pointerleave: () => act.hover(null) };
}
