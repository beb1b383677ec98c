"""Draw docs/images/page*.webp: the page of a real server, on a desktop and on phones.

    python docs/make_page_images.py

Starts `calotype serve` on a free port with a folder of its own, and looks at it with Chromium. It
needs the extra `dev` and Debian's package `chromium`, and takes two minutes on two cores.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"viewport": {"width": 1200, "height": 860}, "color_scheme": "light"}
PHONE = {
    "viewport": {"width": 390, "height": 780},
    "color_scheme": "dark",
    "is_mobile": True,
    "has_touch": True,
}
WAIT = 120_000  # milliseconds, on a slow machine
GAP = 24  # pixels between phones


@contextmanager
def server() -> Iterator[str]:
    """The address of a server with the embedded cascade."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "calotype", "serve", "--port", "0", "--data", folder]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        process = subprocess.Popen(command, **output)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield line.removeprefix("serving on ").strip()
        finally:
            process.terminate()
            process.wait()


def opened(browser: Browser, address: str, screen: dict[str, Any]) -> Page:
    """The page in a window of its own."""
    page = browser.new_context(reduced_motion="reduce", **screen).new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.wait_for_selector(".composer")
    return page


def draft(page: Page, caption: str, chosen: tuple[int, ...]) -> None:
    """Nine drafts of a caption, some of which are finished."""
    page.fill(".prompt", caption)
    page.click("text=Nine drafts")
    page.wait_for_selector("text=Choose the drafts you like")
    for number in chosen:
        page.click(f"[aria-label='Choose draft {number}']")
    page.click(f"text=Finish {len(chosen)} at 1024²")
    page.wait_for_selector(f".badge:has-text('1024²') >> nth={len(chosen) - 1}")


def shot(page: Page) -> Image.Image:
    """What is to be seen, when nothing moves any more."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    """A small WebP."""
    image.save(IMAGES / name, quality=80, method=6)
    print(f"{name}: {image.width}x{image.height}, {(IMAGES / name).stat().st_size:,} bytes")


def beside(images: list[Image.Image]) -> Image.Image:
    """Several images of one height in a row."""
    width = sum(one.width for one in images) + GAP * (len(images) - 1)
    row = Image.new("RGB", (width, images[0].height), "white")
    left = 0
    for one in images:
        row.paste(one, (left, 0))
        left += one.width + GAP
    return row


def phone(browser: Browser, address: str) -> list[Image.Image]:
    """The drafts, an image, and a part of it marked to be filled."""
    page = opened(browser, address, PHONE)
    page.wait_for_selector(".badge:has-text('1024²')")
    page.evaluate("document.querySelector('.job').scrollIntoView()")
    found = [shot(page)]
    page.click(".tile:has(.badge:has-text('1024²')) img >> nth=0")
    page.wait_for_selector("dialog.viewer .large.ready")
    found.append(shot(page))
    page.keyboard.press("e")
    page.wait_for_selector("dialog.editor canvas")
    box = page.locator("dialog.editor .easel").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] - 60, middle[1] + 20)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 40, steps=12)
    page.mouse.up()
    found.append(shot(page))
    return found


def main() -> None:
    """Draw both."""
    with server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = opened(browser, address, DESKTOP)
        draft(page, "a rocket, 3d render style, on a light blue background", (2, 6))
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        save(shot(page), "page.webp")
        save(beside(phone(browser, address)), "page-phone.webp")
        browser.close()


if __name__ == "__main__":
    main()
