"""The page before the real front, its guard and its store, with the engine that needs no models."""

from __future__ import annotations

import pytest

from calotype.serving.front.keys import new_key

pytestmark = pytest.mark.slow


@pytest.fixture
def open_page(chromium, fake, serve_at, tmp_path):
    """A server with settings, and a page of it that complains of nothing."""
    opened, complaints = [], []

    def go(**settings):
        manager = serve_at(fake(data=tmp_path, **settings))
        url, app = manager.__enter__()
        context = chromium.new_context(reduced_motion="reduce", accept_downloads=True)
        opened.extend([context.close, lambda: manager.__exit__(None, None, None)])
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda one: "Policy" in one.text and complaints.append(one.text))
        page.goto(url)
        return page, app.state.hub

    yield go
    for close in opened:
        close()
    assert complaints == []


def ask(page, caption):
    page.fill(".prompt", caption)
    page.click(".actions .main")


def test_drafts_are_finished_found_again_and_made_anew_from_their_file(open_page, tmp_path, until):
    page, _ = open_page()
    page.fill(".prompt", "an owl")
    page.click("text=Nine drafts")
    page.wait_for_selector("text=Choose the drafts you like")
    page.click("[aria-label='Choose draft 3']")
    page.click("text=Finish 1 at 1024²")
    page.wait_for_selector(".badge:has-text('1024²')")
    page.reload()
    page.wait_for_selector(".badge:has-text('1024²')")
    page.click("nav >> text=Library")
    page.wait_for_selector("[aria-setsize='10'] img.there")
    page.click("[data-at='0'] .open")
    page.wait_for_selector("dialog.viewer .large.ready")
    seed = page.inner_text(".facts div:nth-child(2) dd")
    with page.expect_download() as download:
        page.keyboard.press("d")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name.startswith("an-owl-" + seed)
    page.keyboard.press("r")
    until(lambda: page.input_value("[name=seed]") == seed)
    page.click("nav >> text=Create")
    page.fill(".prompt", "something else")
    with page.expect_file_chooser() as chooser:
        page.click(".drop-here")
    chooser.value.set_files(file)
    page.wait_for_selector(".toast")
    assert page.locator(".toast.failure").count() == 0


def test_every_setting_is_one_that_the_server_takes(open_page):
    page, _ = open_page()
    page.click("text=More settings")
    for stage in page.locator(".stage").all():
        stage.locator("summary").click()
    filled = 0
    for place in page.locator(".stage input[type=text]").all():
        own = place.get_attribute("placeholder")
        if own != "none":
            place.fill(own)
            filled += 1
    assert filled > 3
    page.fill("[name=negative]", "a dog")
    page.fill("[name=n]", "2")
    page.fill("[name=seed]", "9007199254740993")
    ask(page, "a cat")
    page.wait_for_selector(".job.done, .job.refused")
    assert page.locator(".job.refused").all_inner_texts() == []
    page.wait_for_selector("text=seed 9007199254740993")


def test_cancel_retry_a_dying_engine_and_delete_with_undo(open_page):
    page, hub = open_page()
    ask(page, "wait for me")
    page.wait_for_selector(".state.running")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=Cancelled.")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_selector(".state.running")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=Cancelled.")
    ask(page, "die once at step 2")
    page.wait_for_selector(".job.done", timeout=40_000)
    assert hub.work.engines[0].restarts == 1
    ask(page, "fail by memory")
    page.wait_for_selector(".state.failed")
    page.click("nav >> text=Library")
    page.wait_for_selector("[data-at='0'] .open")
    page.click("[data-at='0'] .open")
    page.keyboard.press("f")
    page.keyboard.press("Delete")
    page.wait_for_selector("text=No images yet")
    page.click(".toast >> text=Undo")
    page.wait_for_selector("[data-at='0'] .mark")


def test_in_painting_and_image_to_image(open_page, mock_api):
    page, _ = open_page()
    with page.expect_file_chooser() as chooser:
        page.click(".drop-here")
    data = mock_api.canned(4, 200, 120)
    chooser.value.set_files({"name": "boat.png", "mimeType": "image/png", "buffer": data})
    page.wait_for_selector(".source")
    ask(page, "in winter")
    page.wait_for_selector(".job.done")
    page.get_by_role("radio", name="Fill a part").check()
    page.click("text=Paint the part")
    page.click("text=Rectangle in numbers")
    page.click(".numbers >> text=Add")
    page.click("dialog.editor .main")
    page.wait_for_selector(".job.done >> nth=1")


def test_a_page_whose_login_has_ended_asks_for_the_key(open_page, tmp_path):
    key = new_key(tmp_path, "laptop")
    page, _ = open_page()
    page.fill("#key", key)
    page.click("text=Log in")
    page.wait_for_selector(".composer")
    page.context.clear_cookies()
    ask(page, "a fox")
    page.wait_for_selector("dialog.login")
    page.fill("dialog.login input", key)
    page.keyboard.press("Enter")
    page.wait_for_selector(".job.done")
