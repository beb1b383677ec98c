"""Making images on the page: drafts, seeds, the queue, and what the page says when things fail."""

from __future__ import annotations

import re
import time

import pytest

pytestmark = pytest.mark.slow
PNG = "image/png"


def until(condition, seconds=15):
    """Wait for something that Python sees."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def ask(page, caption="a red fox"):
    page.fill(".prompt", caption)
    page.click(".actions .main")


def done(page, count=1):
    page.wait_for_selector(f".job.done >> nth={count - 1}")


def test_a_job_that_takes_too_long_is_warned_of_while_it_can_be_cancelled(visit, served):
    served.mock.warning = "this takes about 640 s, and a job has 300 s; ask for fewer"
    served.mock.faults.add("held")
    page = visit()
    ask(page)
    page.wait_for_selector(".job.queued .held:has-text('about 640 s, and a job has 300 s')")
    page.click(".job >> text=Cancel")
    page.wait_for_selector(".job.cancelled")
    assert page.locator(".job .held").count() == 0


def drop(page, data, name="image.png", kind="drop"):
    """Drop or paste a file, as a browser would."""
    page.evaluate(
        """([bytes, name, kind]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          const given = kind === "paste" ? { clipboardData: transfer } : { dataTransfer: transfer };
          const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
          dispatchEvent(new Kind(kind, { ...given, bubbles: true, cancelable: true }));
        }""",
        [list(data), name, kind],
    )


@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 860}, {"width": 390, "height": 844}]
)
def test_nine_drafts_and_the_chosen_are_finished_by_their_seeds(visit, served, viewport):
    page = visit(viewport=viewport)
    page.fill(".prompt", "an owl")
    page.click("text=Nine drafts")
    page.wait_for_selector(".preview")
    page.wait_for_selector("text=Choose the drafts you like")
    assert served.mock.requests[0] | {"n": 9, "size": [64, 64]} == served.mock.requests[0]
    for number in (2, 5):
        page.click(f"[aria-label='Choose draft {number}']")
    page.click("text=Finish 2 at 1024²")
    page.wait_for_selector(".badge:has-text('1024²') >> nth=1")
    assert page.locator(".job").count() == 1  # in their places
    seed = served.mock.jobs[0].seed
    asked = served.mock.requests[1:]
    assert all(
        one["variety"] == 0.8 for one in served.mock.requests
    )  # there is something to choose
    assert [one["seed"] for one in asked] == [seed + 1, seed + 4]
    assert all(one["size"] == [1024, 1024] and one["n"] == 1 for one in asked)
    page.reload()
    page.wait_for_selector(".badge:has-text('1024²') >> nth=1")


def test_previews_grow_in_place(visit, served):
    served.mock.step_seconds = 0.4
    page = visit()
    ask(page)
    sides = set()
    look = "document.querySelector('.preview')?.naturalWidth ?? 0"
    until(lambda: sides.add(page.evaluate(look)) or len(sides - {0}) >= 3)
    before = page.locator(".tile").bounding_box()
    done(page)
    assert page.locator(".tile").bounding_box()["width"] == before["width"]
    assert page.locator(".tile img[alt='a red fox']").count() == 1


def test_position_and_cancel_while_waiting_and_retry_by_the_same_seed(visit, served):
    served.mock.faults.add("held")
    page = visit()
    ask(page)
    ask(page, "a second one")
    page.wait_for_selector("text=Waiting, number 2 in line · about 8 s")
    page.locator(".job", has_text="a second one").get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=Cancelled.")
    assert served.mock.jobs[1].state == "cancelled"
    served.mock.faults.clear()
    page.get_by_role("button", name="Retry").click()
    done(page, 2)
    assert served.mock.requests[2]["seed"] == served.mock.jobs[1].seed


def test_escape_cancels_what_runs(visit, served):
    served.mock.faults.add("paused")
    page = visit()
    page.focus(".prompt")
    page.keyboard.type("a boat")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".state.running")
    page.keyboard.press("Escape")
    until(lambda: served.mock.jobs[0].state == "cancelled")
    page.wait_for_selector("text=Cancelled.")


def test_a_reopened_tab_finds_its_jobs_and_goes_on(visit, served):
    served.mock.faults.add("paused")
    page = visit()
    ask(page, "a lighthouse")
    page.wait_for_selector(".state.running")
    page.close()
    again = visit()
    again.wait_for_selector(".job:has-text('a lighthouse') .state.running")
    served.mock.faults.clear()
    done(again)


def test_many_jobs_at_once_do_not_use_up_the_connections(visit, served):
    page = visit()
    for number in range(8):
        ask(page, f"number {number}")
    done(page, 8)


def test_large_seeds_stay_exact(visit, served):
    page = visit()
    page.fill("[name=seed]", "9007199254740993")
    ask(page)
    done(page)
    assert served.mock.jobs[0].seed == 9007199254740993
    page.wait_for_selector("text=seed 9007199254740993")
    page.click(".tile .open")
    page.click("text=Copy the command")
    page.click("text=Reuse settings")
    assert page.input_value("[name=seed]") == "9007199254740993"
    ask(page)
    done(page, 2)
    assert served.mock.jobs[1].seed == 9007199254740993
    page.fill("[name=seed]", "9223372036854775808")
    assert page.is_disabled(".actions .main") and "largest seed" in page.inner_text(".seed")


def test_the_lock_takes_the_last_seed(visit, served):
    page = visit()
    ask(page)
    done(page)
    page.click("[aria-label^='Lock the seed']")
    assert page.input_value("[name=seed]") == str(served.mock.jobs[0].seed)
    ask(page)
    done(page, 2)
    assert served.mock.jobs[1].seed == served.mock.jobs[0].seed
    page.click("[aria-label^='Seed is locked']")
    ask(page)
    done(page, 3)
    assert "seed" not in served.mock.requests[2]


def test_every_setting_is_sent_and_kept_over_a_reload(visit, served):
    page = visit()
    page.fill(".prompt", "a cat")
    page.fill("[name=n]", "3")
    page.select_option("[name=size]", "custom")
    page.fill("[aria-label='Width in pixels']", "640")
    page.fill("[aria-label='Height in pixels']", "384")
    page.click("text=More settings")
    page.select_option("[name=model]", "sketches")
    page.fill("[name=negative]", "a dog")
    page.check(".tick input")
    page.click(".stage >> nth=0 >> summary")
    base = page.locator(".stage").nth(0)
    base.get_by_label("Steps", exact=True).fill("12")
    base.get_by_label("Sampler").select_option("ddim")
    base.get_by_label("Guidance between").fill("0.5, 5")
    page.click(".stage >> nth=1 >> summary")
    page.locator(".stage").nth(1).get_by_label("Noise on the small image").fill("0.2")
    page.keyboard.press("Tab")
    page.reload()
    page.wait_for_selector(".composer")
    page.click(".actions .main")
    done(page)
    expected = {
        "kind": "sample", "prompt": "a cat", "n": 3, "size": [640, 384], "model": "sketches",
        "negative_prompt": "a dog", "exact": True, "steps": 12, "sampler": "ddim",
        "stages": {"64": {"guidance_interval": [0.5, 5]}, "256": {"aug_level": 0.2}},
    }  # fmt: skip
    assert served.mock.requests[0] == expected


def test_a_class_is_named_of_models_that_have_some(visit, served):
    page = visit()
    field = page.get_by_label("Class", exact=True)
    assert field.count() == 0
    page.click("text=More settings")
    page.select_option("[name=model]", "sketches")
    assert field.locator("option").all_inner_texts() == ["none", "fluent", "noto"]
    assert field.input_value() == ""
    field.select_option("noto")
    page.fill("[name=seed]", "7")
    page.click("text=Nine drafts")
    page.click("[aria-label='Choose draft 2']")
    page.click("text=Finish 1 at 1024²")
    page.wait_for_selector(".badge:has-text('1024²')")
    page.click("[aria-label='Look at draft 1']")
    page.click("text=Enlarge")  # by stages that take none
    done(page, 2)
    field.select_option("")
    ask(page)
    done(page, 3)
    page.click(".job:has-text('· noto') [aria-label='Open image 2']")
    page.click("text=Reuse settings")
    assert field.input_value() == "noto"
    page.select_option("[name=model]", "styles")
    assert field.locator("option").all_inner_texts() == ["fluent", "noto"]
    assert field.input_value() == "noto"
    page.click("text=Clear the form")
    assert field.input_value() == "fluent"
    ask(page)
    done(page, 4)
    page.click(".tile .open >> nth=0")
    page.click(".does >> text=Vary")
    done(page, 5)
    page.select_option("[name=model]", "default")
    assert field.count() == 0
    ask(page)
    done(page, 6)
    asked = [(one["kind"], one.get("class")) for one in served.mock.requests]
    assert asked == [
        ("sample", "noto"), ("sample", "noto"), ("upscale", None), ("sample", None),
        ("sample", "fluent"), ("vary", "fluent"), ("sample", None),
    ]  # fmt: skip


def test_variety_is_the_models_own_until_it_is_set(visit, served):
    page = visit()
    ask(page)
    done(page)
    page.fill(".variety input", "0.2")
    ask(page)
    done(page, 2)
    page.click("text=Nine drafts")
    done(page, 3)
    page.click(".variety .link")
    ask(page)
    done(page, 4)
    assert [one.get("variety") for one in served.mock.requests] == [None, 0.2, 0.2, None]


def test_a_setting_that_makes_no_sense_says_so(visit):
    page = visit()
    page.click("text=More settings")
    page.click(".stage >> nth=0 >> summary")
    steps = page.locator(".stage").nth(0).get_by_label("Steps", exact=True)
    steps.fill("400")
    page.keyboard.press("Tab")
    assert steps.get_attribute("aria-invalid") == "true"
    page.wait_for_selector("text=A whole number from 1 to 256.")


def test_chips_write_into_the_caption_and_out_of_it(visit):
    page = visit()
    page.fill(".prompt", "a fox")
    page.click(".chip >> text=yellow")
    page.click(".chip >> text=noto")
    assert page.input_value(".prompt") == "a fox, noto style, on a yellow background"
    page.click(".chip >> text=flat fluent")
    assert page.input_value(".prompt") == "a fox, flat fluent style, on a yellow background"
    page.click(".chip >> text=yellow")
    page.click(".chip >> text=flat fluent")
    assert page.input_value(".prompt") == "a fox"


def test_a_full_queue_is_waited_for(visit, served):
    served.mock.faults.add("full")
    page = visit()
    ask(page)
    page.wait_for_selector("text=The queue is full. It is sent again in")
    served.mock.faults.clear()
    page.click("text=Send now")
    done(page)
    assert len(served.mock.jobs) == 1


def test_the_server_goes_away_and_comes_back(visit, served):
    page = visit()
    page.wait_for_selector(".pill.ready")
    served.stop()
    page.wait_for_selector(".banner.offline", timeout=30_000)
    ask(page)
    page.wait_for_selector(".state.held:has-text('cannot be reached')")
    served.start()
    done(page)
    page.wait_for_selector(".pill.ready")
    assert len(served.mock.jobs) == 1


def test_restarting_full_disk_failed_and_refused_say_what_to_do(visit, served):
    served.mock.faults |= {"restarting", "disk", "failing"}
    page = visit()
    page.wait_for_selector(".banner.restarting:has-text('begin again by themselves')")
    page.wait_for_selector(".banner.disk:has-text('Download what you want to have')")
    ask(page)
    page.wait_for_selector(".state.failed:has-text('try a smaller size')")
    assert page.locator("[role=alert]").inner_text().startswith("Failed")
    served.mock.faults.clear()
    page.get_by_role("button", name="Retry").click()
    done(page)
    page.wait_for_selector(".banner", state="detached")


def test_a_job_that_the_server_forgot_ends(visit, served):
    served.mock.faults.add("held")
    page = visit()
    ask(page)
    page.wait_for_selector(".state.waiting:has-text('in line')")
    served.stop()
    served.mock.jobs.clear()
    served.start()
    page.wait_for_selector("text=no longer knows this job", timeout=30_000)


def test_a_server_with_keys_asks_for_one(visit, served):
    served.mock.faults.add("key")
    page = visit()
    page.wait_for_selector("dialog.login")
    page.fill("dialog.login input", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=does not know this key")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.fill("dialog.login input", "right")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.login", state="detached")
    ask(page)
    done(page)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_with_a_recipe_restores_its_settings(visit, served, mock_api, kind):
    served.mock.recipe = {
        "kind": "sample", "prompt": "a whale", "negative_prompt": "a fish", "n": 1,
        "seed": "9007199254740993", "size": [256, 256], "steps": 9, "stages": {"256": {"steps": 3}},
    }  # fmt: skip
    page = visit()
    drop(page, mock_api.canned(1, 64, 64), kind=kind)
    page.wait_for_selector("text=Settings restored.")
    assert page.input_value(".prompt") == "a whale" and page.locator(".source").count() == 0
    page.click(".actions .main")
    done(page)
    sent = served.mock.requests[0]
    assert sent.pop("seed") == "9007199254740993"
    assert sent == {k: v for k, v in served.mock.recipe.items() if k != "seed"}
    page.click("text=Work on the image")
    page.wait_for_selector(".source img")


def test_any_other_image_becomes_the_source(visit, served, mock_api):
    page = visit()
    data = mock_api.canned(5, 120, 80)
    with page.expect_file_chooser() as chooser:
        page.click(".drop-here")
    chooser.value.set_files({"name": "holiday.png", "mimeType": PNG, "buffer": data})
    page.wait_for_selector(".source:has-text('holiday.png')")
    page.fill("input[type=range]", "0.3")
    ask(page, "in winter")
    done(page)
    assert served.mock.requests[0] == {
        "kind": "image_to_image", "prompt": "in winter", "n": 1, "strength": 0.3,
    }  # fmt: skip
    assert served.mock.sources[0] == (data, None)


def test_what_is_no_image_is_refused_in_words(visit):
    page = visit()
    drop(page, b"no image", "notes.png")
    page.wait_for_selector(".toast.failure:has-text('cannot be read as an image')")


def test_an_accepted_title_counts_what_runs(visit, served):
    served.mock.faults.add("paused")
    page = visit()
    ask(page)
    page.wait_for_selector(".state.running")
    assert re.match(r"\(1\)", page.title())
    served.mock.faults.clear()
    done(page)
    assert page.title() == "calotype"
