"""The library and the viewer: ten thousand images, search, favourites, and all one does to one."""

from __future__ import annotations

import base64
import io
import time
import zipfile

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 844}


def until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def shown(page):
    return page.eval_on_selector_all(".grid img", "all => all.map(one => one.alt)")


def open_first(page):
    page.click(".grid li[data-at='0'] .open")
    page.wait_for_selector("dialog.viewer .large.ready")


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 860}, PHONE])
def test_ten_thousand_images_stay_smooth(visit, served, mock_api, viewport):
    served.mock.images.clear()
    served.mock.fill(10_000)
    small = [mock_api.canned(seed, 32, 32, "WEBP") for seed in range(12)]
    small = [f"data:image/webp;base64,{base64.b64encode(one).decode()}" for one in small]
    for number, one in enumerate(served.mock.images):  # the mock's server would be what is slow
        one["thumbnail"] = small[number % 12]
    page = visit("#library", viewport=viewport)
    page.wait_for_selector(".grid img")
    for _ in range(600):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        if page.locator("[aria-setsize='10000']").count():
            break
        time.sleep(0.03)
    page.wait_for_selector("[aria-posinset='10000'][aria-setsize='10000'] img[alt='a red fox']")
    most = page.evaluate("document.querySelectorAll('*').length")
    assert most < 1500
    # Frames while it scrolls all the way up again.
    slow = page.evaluate(
        """() => new Promise((resolve) => {
          const times = [];
          let last = performance.now(), left = 60;
          const step = scrollY / left;
          const next = (now) => {
            times.push(now - last);
            last = now;
            scrollBy(0, -step);
            if (--left > 0) requestAnimationFrame(next);
            else resolve(times.sort((a, b) => a - b)[45]);
          };
          requestAnimationFrame(next);
        })"""
    )
    assert slow < 100  # milliseconds, of three frames in four, on a busy machine
    until(lambda: page.locator("[data-at='0'] img").count() == 1)


def test_arrows_browse_with_one_tab_stop(visit, served):
    page = visit("#library")
    page.wait_for_selector(".grid img")
    assert page.locator(".grid .open[tabindex='0']").count() == 1
    page.focus(".grid .open[tabindex='0']")
    at = "document.activeElement.closest('li').dataset.at"
    columns = page.evaluate(
        "[...document.querySelectorAll('.grid li')].filter((one, _, all) =>"
        " one.getBoundingClientRect().top === all[0].getBoundingClientRect().top).length"
    )
    for key, place in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns),
                       ("ArrowUp", 0), ("End", 29), ("Home", 0)):  # fmt: skip
        page.keyboard.press(key)
        until(lambda place=place: page.evaluate(at) == str(place))
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.viewer")
    names = []
    for _ in range(3):
        names.append(page.inner_text("dialog.viewer h2"))
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert names == [one["prompt"] for one in reversed(served.mock.images)][:3]
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.viewer", state="detached")
    until(lambda: page.evaluate(at) == "0")  # the focus is back where it was


def test_search_and_what_nothing_means(visit, served):
    page = visit("#library")
    page.fill("[name=search]", "owl red")
    until(lambda: set(shown(page)) == {"an owl, noto style, on a red background"})
    page.fill("[name=search]", "giraffe")
    page.wait_for_selector("text=Nothing for “giraffe”")
    page.click("text=Show all images")
    until(lambda: len(set(shown(page))) > 3)
    assert page.input_value("[name=search]") == ""
    page.click(".search .button")
    page.wait_for_selector("text=No favourites yet")


def test_an_image_that_comes_while_the_library_loads_is_shown(visit, served):
    page = visit("#library")
    page.wait_for_selector(".grid img")
    held = []
    page.route("**/api/v1/images?*", lambda one: held.append((one, one.fetch())), times=1)
    page.evaluate("import('/page/app/images.js').then((images) => { images.reload(); })")
    until(lambda: page.wait_for_timeout(20) or held)
    served.mock.add("a new image", 77, 256, 256)
    page.evaluate("import('/page/app/jobs.js').then((jobs) => jobs.finished.set((n) => n + 1))")
    page.wait_for_timeout(700)  # by now it has looked, and the older answer is still on its way
    route, answer = held[0]
    route.fulfill(response=answer)
    page.wait_for_selector(".grid li[data-at='0'] img[alt='a new image']")


def test_favourites(visit, served):
    page = visit("#library")
    open_first(page)
    page.keyboard.press("f")
    until(lambda: served.mock.images[-1]["favourite"])
    page.keyboard.press("Escape")
    page.wait_for_selector(".grid .mark")
    page.click(".search .button")
    until(lambda: len(shown(page)) == 1)
    page.reload()
    page.click("text=Favourites")
    until(lambda: len(shown(page)) == 1)


def test_delete_with_undo(visit, served):
    page = visit("#library")
    open_first(page)
    page.keyboard.press("Delete")
    page.wait_for_selector(".toast:has-text('1 image deleted.')")
    assert served.mock.images[-1]["deleted"]
    assert "2" not in page.inner_text("dialog.viewer .hint").split(" ")[0]  # the next one came
    page.keyboard.press("Escape")
    page.click(".toast >> text=Undo")
    until(lambda: not served.mock.images[-1]["deleted"])
    until(
        lambda: (
            page.locator("[data-at='0'] img").get_attribute("alt")
            == served.mock.images[-1]["prompt"]
        )
    )


def test_download_one_and_a_zip_and_several(visit, served):
    page = visit("#library", accept_downloads=True)
    open_first(page)
    with page.expect_download() as one:
        page.keyboard.press("d")
    assert Image.open(one.value.path()).size == (256, 256)
    page.keyboard.press("Escape")
    page.click("text=Select")
    for place in (0, 2, 3):
        page.click(f"[data-at='{place}'] .open")
    with page.expect_download() as packed:
        page.click("text=Zip")
    assert len(zipfile.ZipFile(io.BytesIO(packed.value.path().read_bytes())).namelist()) == 3
    page.click(".several >> text=Favourite")
    until(lambda: sum(one["favourite"] for one in served.mock.images) == 3)
    page.click(".several >> text=Delete")
    until(lambda: sum(one["deleted"] for one in served.mock.images) == 3)
    page.keyboard.press("Escape")
    page.wait_for_selector(".several", state="detached")


def test_copy_the_command(visit, served):
    served.mock.images[-1] |= {
        "prompt": "it's 5 o'clock", "request": {
            "kind": "sample", "prompt": "it's 5 o'clock", "seed": 7, "size": [1024, 1024], "n": 1,
            "negative_prompt": "a cat", "steps": 9, "guidance": 2.5, "seed_text": "7",
            "stages": {"256": {"steps": 8, "aug_level": 0.2}}},
        "seed_text": "7",
    }  # fmt: skip
    page = visit("#library", permissions=["clipboard-read", "clipboard-write"])
    open_first(page)
    page.click("text=Copy the command")
    page.wait_for_selector("text=The command is copied.")
    assert page.evaluate("navigator.clipboard.readText()") == (
        "calotype sample 'it'\\''s 5 o'\\''clock' --seed 7 --size 1024 --negative \"a cat\" "
        "--steps 9 --guidance 2.5 --stage-option 256:steps=8,aug_level=0.2"
    )


def test_the_copied_command_is_one_that_calotype_takes(visit, served):
    import shlex

    import typer

    from calotype.cli import app

    names = {"prompt": "--a fox", "seed_text": "18", "request": {
        "kind": "sample", "prompt": "--a fox", "seed": 18, "size": [640, 384], "sampler": "ddim",
        "variety": 0.5, "negative_prompt": "-x"}}  # fmt: skip
    served.mock.images[-1] |= names
    page = visit("#library", permissions=["clipboard-read", "clipboard-write"])
    open_first(page)
    page.click("text=Copy the command")
    page.wait_for_selector("text=The command is copied.")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    command = typer.main.get_command(app).commands[words[1]]
    taken = command.make_context("sample", words[2:], resilient_parsing=True).params
    assert taken["captions"] == ["--a fox"] or taken["captions"] == ("--a fox",)
    assert (taken["seed"], taken["size"], taken["negative"]) == (18, "640x384", "-x")


def test_compare_with_a_slider_by_key_and_beside_each_other(visit, served):
    page = visit("#library")
    open_first(page)
    page.keyboard.press("c")
    slider = page.locator("dialog.compare input[type=range]")
    until(lambda: slider.evaluate("one => one === document.activeElement"))
    page.wait_for_selector(".divided")
    top = page.locator(".divided .top")
    before = top.evaluate("one => one.style.clipPath")
    page.keyboard.press("ArrowLeft")
    until(lambda: top.evaluate("one => one.style.clipPath") != before)
    box = page.locator(".divided").bounding_box()
    assert box["width"] > 200 and box["height"] > 200
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 50)
    until(lambda: slider.input_value() == "25")
    page.get_by_role("radio", name="Side by side").check()
    page.wait_for_selector(".compared.beside img >> nth=1")
    first = page.locator(".compared img").nth(0).get_attribute("alt")
    page.click("text=Swap")
    until(lambda: page.locator(".compared img").nth(0).get_attribute("alt") != first)
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.compare", state="detached")
    assert page.locator("dialog.viewer").count() == 1


def test_enlarge_vary_and_reuse(visit, served):
    page = visit("#library")
    open_first(page)
    page.click("text=Enlarge")
    page.wait_for_selector(".job.done")
    sent = served.mock.requests[0]
    assert (sent["kind"], sent["size"], sent["n"]) == ("upscale", [1024, 1024], 1)
    assert Image.open(io.BytesIO(served.mock.sources[0][0])).size == (256, 256)
    page.click("nav >> text=Library")
    open_first(page)
    page.keyboard.press("v")
    page.wait_for_selector(".job.done >> nth=1")
    assert (served.mock.requests[1]["kind"], served.mock.requests[1]["n"]) == ("vary", 4)
    page.click("nav >> text=Library")
    newest = served.mock.images[-1]["thumbnail"]
    page.wait_for_selector(f"[data-at='0'] img[src='{newest}']")  # the five have come to the front
    page.click("[data-at='5'] .open")
    prompt = page.inner_text("dialog.viewer h2")
    page.keyboard.press("r")
    until(lambda: page.input_value(".prompt") == prompt)
    assert page.input_value("[name=seed]") != ""


def test_new_images_come_to_the_front_of_the_library(visit, served):
    page = visit("#library")
    page.wait_for_selector(".grid img")
    page.click("nav >> text=Create")
    page.fill(".prompt", "a brand new one")
    page.click(".actions .main")
    page.wait_for_selector(".job.done")
    page.click("nav >> text=Library")
    page.wait_for_selector("[data-at='0'] img[alt='a brand new one']")


def test_empty_and_failing_libraries_say_what_to_do(visit, served):
    served.mock.images.clear()
    page = visit("#library")
    page.wait_for_selector("text=No images yet")
    page.click("text=Make the first")
    assert page.is_visible(".prompt")
    served.mock.kept = "none"
    page.reload()
    page.click("nav >> text=Library")
    page.wait_for_selector("text=keeps no images")
    served.mock.store, served.mock.kept = "unopened", "page"
    served.mock.faults.add("disk")
    page.reload()
    page.click("nav >> text=Library")
    page.wait_for_selector("text=The library is closed")
    page.wait_for_selector(".banner.disk:has-text('start the server again')")


def test_a_dialog_has_the_keys_as_soon_as_it_is_there(visit, served):
    page = visit("#library")
    page.wait_for_selector(".grid img")
    page.evaluate(
        """() => new MutationObserver(() => {
          const dialog = document.querySelector("dialog.viewer");
          if (dialog && !("seen" in window))
            window.seen = dialog.open && dialog.contains(document.activeElement);
        }).observe(document.body, { childList: true, subtree: true })"""
    )
    page.click("[data-at='2'] .open")
    page.wait_for_selector("dialog.viewer")
    assert page.evaluate("window.seen")


def test_captions_that_look_like_markup_stay_text(visit, served):
    served.mock.images[-1] |= {"prompt": "<img src=x onerror=alert(1)><b>bold</b>"}
    page = visit("#library")
    open_first(page)
    assert page.inner_text("dialog.viewer h2").startswith("<img src=x")
