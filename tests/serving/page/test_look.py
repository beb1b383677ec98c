"""What a first visit asks of the page: nothing jumps or is cut off, and what is lost is said."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow
PHONES = [{"width": 390, "height": 844}, {"width": 320, "height": 640}]
IN_SIGHT = """node => {
    const box = node.getBoundingClientRect();
    return box.top >= 0 && box.left >= 0
        && box.bottom <= innerHeight && box.right <= innerWidth; }"""


def place(page, selector):
    return page.locator(selector).bounding_box()


def opened(visit, key, viewport):
    """The page with the newest image of the library, after a key."""
    page = visit("#library", viewport=viewport)
    page.click("[data-at='0'] .open")
    page.keyboard.press(key)
    return page


def test_drafts_stay_where_they_are_and_their_button_is_in_sight(visit, served):
    served.mock.faults.add("held")
    page = visit()
    page.fill(".prompt", "an owl")
    page.click("text=Nine drafts")
    page.wait_for_selector(".state.waiting")
    page.wait_for_timeout(300)
    places = [place(page, ".job .tiles")]
    served.mock.faults.clear()
    page.wait_for_selector(".state.running")
    places.append(place(page, ".job .tiles"))
    page.wait_for_selector(".state.done:has-text('Made in')")
    places.append(place(page, ".job .tiles"))
    assert places[0] == places[1] == places[2]
    assert page.locator(".job footer .button").evaluate(IN_SIGHT)


def test_an_example_begins_its_drafts(visit, served):
    page = visit()
    page.click(".examples >> text=an owl")
    page.wait_for_selector("text=Choose the drafts you like")
    assert page.input_value(".prompt") == served.mock.requests[0]["prompt"]
    assert served.mock.requests[0]["n"] == 9


def paint(page, data):
    """Bring an image, and mark a part of it."""
    with page.expect_file_chooser() as chooser:
        page.click(".drop-here")
    chooser.value.set_files({"name": "boat.png", "mimeType": "image/png", "buffer": data})
    page.get_by_role("radio", name="Fill a part").check()
    page.click("text=Paint the part")
    page.click("text=Rectangle in numbers")
    page.click(".numbers >> text=Add")


def test_a_reopened_tab_asks_for_an_edit_again_with_its_source_and_mask(visit, served, mock_api):
    served.mock.faults.add("paused")
    page = visit()
    data = mock_api.canned(4, 200, 120)
    paint(page, data)
    page.click("dialog.editor .main")
    page.wait_for_selector(".state.running")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=Cancelled.")
    page.reload()
    served.mock.faults.clear()
    page.get_by_role("button", name="Retry").click()
    page.wait_for_selector(".job.done")
    assert served.mock.sources[1] == served.mock.sources[0] and served.mock.sources[0][0] == data
    assert page.locator(".job").count() == 1
    page.reload()
    page.wait_for_selector(".job.done")
    assert page.locator(".job").count() == 1  # the cancelled one was taken off
    page.click("[aria-label='Reuse these settings']")
    page.wait_for_selector(".source:has-text('200 × 120')")


def test_an_edit_whose_source_is_lost_says_so_and_keeps_its_settings(visit, served, mock_api):
    served.mock.faults.add("paused")
    page = visit()
    paint(page, mock_api.canned(4, 200, 120))
    page.fill("dialog.editor input[type=text]", "a red sail")
    page.click("dialog.editor .main")
    page.wait_for_selector(".state.running")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=Cancelled.")
    page.close()
    page = visit()  # another browser
    page.get_by_role("button", name="Retry").click()
    page.wait_for_selector(".toast:has-text('its source is not kept here any more')")
    assert page.input_value(".prompt") == "a red sail" and len(served.mock.jobs) == 1


def test_what_cannot_be_sent_says_why_to_the_keyboard_too(visit, served, mock_api):
    page = visit()
    page.fill("[name=seed]", "seven")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".toast.failure:has-text('A seed is a whole number')")
    page.keyboard.press("Control+Shift+Enter")
    assert served.mock.requests == []
    page.fill("[name=seed]", "")
    with page.expect_file_chooser() as chooser:
        page.click(".drop-here")
    large = mock_api.canned(4, 1024, 1024)
    chooser.value.set_files({"name": "boat.png", "mimeType": "image/png", "buffer": large})
    page.get_by_role("radio", name="Enlarge it").check()
    page.wait_for_selector("text=It has 1024² already")
    assert page.is_disabled(".actions .main")


def test_the_models_own_choices_are_read_whole(visit):
    page = visit()
    page.click("text=More settings")
    page.click(".stage >> nth=0 >> summary")
    base = page.locator(".stage").nth(0)
    sampler = base.get_by_role("combobox", name="Sampler")
    names = sampler.locator("option").all_inner_texts()
    assert names[0] == "dpmpp_2m" and len(names) == len(set(names)) == 5
    assert "own" in sampler.get_attribute("class")
    sampler.select_option("ddim")
    assert "own" not in sampler.get_attribute("class")


@pytest.mark.parametrize("viewport", PHONES)
def test_comparing_on_a_phone_has_its_handle_and_its_close_in_place(visit, viewport):
    page = opened(visit, "c", viewport)
    page.wait_for_selector(".divide-line")
    line = place(page, ".divide-line")
    middle = line["y"] + line["height"] / 2
    for by in (-10, 12):  # both halves of the handle lie over both images
        found = "([x, y]) => document.elementFromPoint(x, y).className"
        assert page.evaluate(found, [line["x"] + by, middle]) == "divide-line"
    box, close = place(page, "dialog.compare"), place(page, "dialog.compare [aria-label=Close]")
    assert box["x"] + box["width"] - close["x"] - close["width"] < 30


@pytest.mark.parametrize("viewport", PHONES)
def test_chips_take_one_line_each_on_a_phone(visit, viewport):
    page = visit(viewport=viewport)
    page.wait_for_selector(".chips")
    assert [one.bounding_box()["height"] < 48 for one in page.locator(".chips").all()] == [True] * 2
    page.locator(".chip.more").focus()
    assert page.locator(".chip.more").evaluate(IN_SIGHT)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_begins_from_an_image_far_below_comes_into_sight(visit, served):
    page = visit()
    for caption in ("one", "two", "three"):
        page.fill(".prompt", caption)
        page.click(".actions .main")
        page.wait_for_selector(f".job.done:has-text('{caption}')")
    page.locator(".job", has_text="one").locator(".open").click()
    page.keyboard.press("v")
    page.wait_for_selector(".job.done:has-text('varied')")
    assert page.locator(".job", has_text="varied").locator("h3").evaluate(IN_SIGHT)
    page.locator(".job", has_text="three").get_by_label("Take this off").click()
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_newest_job_is_not_under_the_banner(visit, served):
    served.mock.faults |= {"restarting", "disk", "paused"}
    page = visit()
    page.wait_for_selector(".banner.disk")
    page.fill(".prompt", "a fox")
    page.click(".actions .main")
    page.wait_for_selector(".state.running")
    head = place(page, ".masthead")
    assert place(page, ".job h3")["y"] > head["y"] + head["height"]


@pytest.mark.parametrize("viewport", PHONES)
def test_a_rectangle_in_numbers_takes_one_line(visit, viewport):
    page = opened(visit, "e", viewport)
    page.click("text=Rectangle in numbers")
    fields = [one.bounding_box() for one in page.locator(".numbers input").all()]
    assert len({field["y"] for field in fields}) == 1
    assert page.locator(".numbers .button").evaluate(IN_SIGHT)
