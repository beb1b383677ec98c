"""Take the screenshots of the web page: `python docs/make_page_images.py http://127.0.0.1:8000`.

The server there serves the embedded default; Playwright drives Debian's Chromium. On two cores it
takes about two minutes.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
CAPTION = "a red fox, 3d render style, on a light blue background"


def keep(page: Page, name: str) -> None:
    """Write what is shown as `docs/images/NAME.webp`."""
    page.wait_for_timeout(800)
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shown.save(IMAGES / f"{name}.webp", quality=88, method=6)


def finish_two_drafts(page: Page) -> None:
    """Nine drafts, two of them finished in their places."""
    page.fill(".prompt", CAPTION)
    page.click("text=Nine drafts")
    page.wait_for_selector("text=Choose the drafts you like")
    for number in (2, 6):
        page.click(f"[aria-label='Choose draft {number}']")
    page.click("text=Finish 2 at 1024²")
    page.wait_for_selector(".badge:has-text('1024²') >> nth=1")
    page.click("[aria-label='Choose draft 4']")


def paint(page: Page) -> None:
    """The editor, with a stroke and a rectangle."""
    page.click("[aria-label='Open image 2']")
    page.wait_for_selector("dialog.viewer .large.ready")
    page.click("text=Fill a part")
    page.wait_for_selector(".sheet img")
    page.wait_for_timeout(500)
    box = page.locator(".sheet").bounding_box()
    assert box is not None
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    for tool, start, end in (("Brush", (0.3, 0.3), (0.62, 0.36)), ("Rect", (0.7, 0.6), (0.9, 0.8))):
        page.click(f"dialog.editor [aria-label^={tool}]")
        page.mouse.move(*at(*start))
        page.mouse.down()
        page.mouse.move(*at(*end), steps=6)
        page.mouse.up()


def main(url: str) -> None:
    """Take them all."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, width, height, scheme in (
            ("page", 1360, 900, "light"), ("page-phone", 390, 844, "dark"),
        ):  # fmt: skip
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page = context.new_page()
            page.set_default_timeout(300_000)
            page.goto(url)
            page.wait_for_selector(".pill.ready, .pill.busy")
            if name == "page":
                finish_two_drafts(page)
                page.evaluate("scrollTo(0, 0)")
                keep(page, name)
                paint(page)
                keep(page, "page-editor")
            else:
                page.click("nav >> text=Library")
                page.wait_for_selector(".grid img.there")
                page.click("[data-at='0'] .open")
                page.wait_for_selector("dialog.viewer .large.ready")
                keep(page, name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
