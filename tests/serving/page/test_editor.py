"""Painting the part to fill: by mouse, pen, finger and key, over the edge, undone, inverted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
SIZE = (200, 100)


def take_source(page, mock_api, name="boat.png", size=SIZE):
    with page.expect_file_chooser() as chooser:
        page.click(".drop-here, .source button:has-text('Other image')")
    data = mock_api.canned(3, *size)
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})
    page.wait_for_selector(f".source:has-text('{name}')")
    return data


def open_editor(page):
    page.get_by_role("radio", name="Fill a part").check()
    page.click("text=/Paint the part|Change the part/")
    page.wait_for_selector(".sheet img")


def place(page, x, y):
    """Where a pixel of the image is on the screen."""
    box = page.locator(".sheet").bounding_box()
    return box["x"] + x / SIZE[0] * box["width"], box["y"] + y / SIZE[1] * box["height"]


def drag(page, *points):
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=4)
    page.mouse.up()


def filled(page, served):
    """Send it; the mask that came."""
    page.fill("dialog.editor input[placeholder='What should be there?']", "a cat")
    before = len(served.mock.requests)
    page.click("dialog.editor .main")
    page.wait_for_selector(f".job.done >> nth={before}")
    assert served.mock.requests[-1]["kind"] == "inpaint"
    image = Image.open(io.BytesIO(served.mock.sources[-1][1]))
    assert image.size == SIZE
    mask = np.asarray(image.convert("L"))
    assert set(np.unique(mask)) <= {0, 255}
    return mask == 255


def button(page, name):
    page.get_by_role("button", name=name).click()


def test_rectangle_erase_invert_and_undo_are_exact(visit, served, mock_api):
    page = visit()
    source = take_source(page, mock_api)
    open_editor(page)
    page.click("text=Rectangle in numbers")
    numbers = page.locator(".numbers")
    for name, value in (("Left", 20), ("Top", 10), ("Width", 60), ("Height", 30)):
        numbers.get_by_label(name).fill(str(value))
    numbers.get_by_role("button", name="Add").click()
    button(page, "Invert (I)")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+Z")
    page.keyboard.press("Control+z")
    button(page, "Erase (X)")
    for name, value in (("Left", 40), ("Top", 0), ("Width", 10), ("Height", 200)):
        numbers.get_by_label(name).fill(str(value))
    numbers.get_by_role("button", name="Add").click()
    button(page, "Invert (I)")
    mask = filled(page, served)
    expected = np.zeros((100, 200), bool)
    expected[10:40, 20:80] = True
    expected[:, 40:50] = False
    assert (mask == ~expected).all()
    assert served.mock.sources[-1][0] == source  # the file itself, not a copy of its pixels


def test_strokes_may_leave_the_edge(visit, served, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    drag(page, (-15, 50), (100, 50), (215, 50))
    mask = filled(page, served)
    assert mask[50].all()  # from edge to edge
    assert not mask[0].any() and not mask[-1].any()


def test_a_rectangle_by_dragging_and_by_two_clicks(visit, served, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    page.keyboard.press("r")
    drag(page, (10.3, 10.3), (60, 40))
    drag(page, (99.4, 95.4), (70.4, 50.4))  # from any corner, and from between pixels
    page.mouse.click(*place(page, 120, 60))
    page.mouse.click(*place(page, 180, 90))
    mask = filled(page, served)
    assert mask[25, 35] and mask[75, 150] and mask[70, 85]
    assert abs(int(mask.sum()) - (50 * 30 + 60 * 30 + 29 * 45)) < 500


def test_by_keyboard_alone(visit, served, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    assert page.evaluate("document.activeElement.className").startswith("easel")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("r")
    for _ in range(20):
        page.keyboard.press("ArrowUp")
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert "Rectangle of" in page.inner_text("[role=status]")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".job.done")
    mask = np.asarray(Image.open(io.BytesIO(served.mock.sources[0][1])).convert("L")) == 255
    assert mask[50, 100] and mask[50, 115]  # the brush, from the middle to the right
    assert mask[2, 2] and not mask[2, 150]


def test_escape_gives_up_a_stroke_and_then_closes(visit, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.is_visible("dialog.editor")
    assert page.is_disabled("[aria-label^='Undo']")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.editor", state="detached")
    page.wait_for_selector("text=Nothing is chosen yet.")
    page.click(".actions .main")
    page.wait_for_selector(".toast.failure:has-text('Paint first')")


def pointers(page, kind, strokes):
    """Pointer events as a pen or fingers make them: each stroke is a list of (id, type, x, y)."""
    page.evaluate(
        """([kind, strokes]) => {
          const easel = document.querySelector(".easel");
          easel.setPointerCapture = () => {};
          for (const [pointerId, type, clientX, clientY, buttons] of strokes) {
            const button = type === "pointermove" ? -1 : 0;
            const given = { pointerId, pointerType: kind, clientX, clientY, button, buttons };
            easel.dispatchEvent(
              new PointerEvent(type, { ...given, bubbles: true, cancelable: true }));
          }
        }""",
        [kind, strokes],
    )


def test_a_pen_paints_and_its_other_end_erases(visit, served, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    for buttons in (1, 32):
        way = [(40, 50), (100, 50), (160, 50)] if buttons == 1 else [(90, 50), (110, 50)]
        at = [place(page, *point) for point in way]
        kinds = ["pointerdown", *["pointermove"] * (len(at) - 1)]
        pointers(page, "pen", [
            *([5, kind, *point, buttons] for kind, point in zip(kinds, at, strict=True)),
            [5, "pointerup", *at[-1], 0],
        ])  # fmt: skip
    mask = filled(page, served)
    assert mask[50, 40] and mask[50, 160] and not mask[50, 100]


def test_two_fingers_zoom_and_paint_nothing(visit, mock_api):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    take_source(page, mock_api)
    open_editor(page)
    before = page.locator(".sheet").bounding_box()["width"]
    a, b = place(page, 80, 50), place(page, 120, 50)
    pointers(page, "touch", [
        [1, "pointerdown", *a, 1], [2, "pointerdown", *b, 1],
        [1, "pointermove", a[0] - 40, a[1], 1], [2, "pointermove", b[0] + 40, b[1], 1],
        [1, "pointerup", a[0] - 40, a[1], 0], [2, "pointerup", b[0] + 40, b[1], 0],
    ])  # fmt: skip
    page.wait_for_timeout(100)
    assert page.locator(".sheet").bounding_box()["width"] > 1.5 * before
    assert page.is_disabled("[aria-label^='Undo']")
    button(page, "All of it in sight (0)")
    page.wait_for_timeout(100)
    assert abs(page.locator(".sheet").bounding_box()["width"] - before) < 2


def test_zoom_by_wheel_and_pan_by_hand(visit, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    before = page.locator(".sheet").bounding_box()
    page.mouse.move(*place(page, 100, 50))
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(100)
    zoomed = page.locator(".sheet").bounding_box()
    assert zoomed["width"] > before["width"]
    page.keyboard.press("h")
    x, y = place(page, 100, 50)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=3)
    page.mouse.up()
    page.wait_for_timeout(100)
    moved = page.locator(".sheet").bounding_box()
    assert abs(moved["x"] - zoomed["x"] - 60) < 2 and abs(moved["y"] - zoomed["y"] - 20) < 2
    assert page.is_disabled("[aria-label^='Undo']")


def test_a_new_image_clears_the_mask_and_reopening_keeps_it(visit, served, mock_api):
    page = visit()
    take_source(page, mock_api)
    open_editor(page)
    drag(page, (50, 50), (150, 50))
    page.click("dialog.editor >> text=Done")
    page.wait_for_selector("text=/of the image is filled anew/")
    open_editor(page)
    assert page.is_enabled("[aria-label^='Undo']")
    page.keyboard.press("Escape")
    take_source(page, mock_api, "other.png")
    page.get_by_role("radio", name="Fill a part").check()
    page.wait_for_selector("text=Nothing is chosen yet.")
    open_editor(page)
    assert page.is_disabled("[aria-label^='Undo']")
