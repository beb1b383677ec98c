"""An image comes in, and what it says of how it was made goes out."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image, PngImagePlugin

RECIPE = "/api/v1/recipe"
OURS = {
    "format": "calotype",
    "version": 1,
    "kind": "sample",
    "caption": "a red fox",
    "seed": 2**53 + 1,
    "stages": [{"resolution": 64, "sampling": {"steps": 12}, "width": 64, "height": 64}],
}
THEIRS = (
    "a cat, <b>bold</b>\nNegative prompt: ugly\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 5"
)


def png(**texts):
    """A PNG with texts; its width and height differ."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    out = io.BytesIO()
    Image.new("RGB", (48, 32)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def sent(api, data):
    answer = api.post(RECIPE, files={"image": ("x.png", data)})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["width"], found["height"]) == (48, 32)
    return found


def test_ours_becomes_the_request_again(api) -> None:
    found = sent(api, png(calotype=json.dumps(OURS)))
    assert found["recipe"] == OURS
    assert found["request"]["prompt"] == "a red fox" and found["request"]["steps"] == 12
    assert found["request"]["seed_text"] == str(2**53 + 1)
    answer = api.post("/api/v1/jobs", json=found["request"])
    assert answer.status_code == 202 and answer.json()["images"][0]["seed"] == 2**53 + 1


def test_theirs_becomes_the_nearest_request(api) -> None:
    found = sent(api, png(parameters=THEIRS))
    assert found["recipe"] is None and found["parameters"] == THEIRS
    request = found["request"]
    assert request["prompt"] == "a cat, <b>bold</b>" and request["negative_prompt"] == "ugly"
    assert (request["steps"], request["sampler"], request["seed"]) == (4, "ddim", 5)
    assert request["guidance"] == 3.0  # their 20 steps and scale 7 mean the model's own


def test_an_image_without_settings_is_no_error(api) -> None:
    found = sent(api, png())
    assert found["recipe"] is found["parameters"] is found["request"] is None
    assert found["ignored"] == []


def test_files_come_raw_too(api) -> None:
    data = png(calotype=json.dumps(OURS))
    answer = api.post(RECIPE, content=data, headers={"content-type": "image/png"})
    assert answer.json()["recipe"] == OURS


@pytest.mark.parametrize(
    "recipe",
    [
        '{"seed": NaN, "caption": "x", "steps": 1e999}',
        '{"caption": "\\ud800", "kind": "sample"}',
        "[" * 900 + "]" * 900,
        '{"a": ' + "[" * 900 + "]" * 900 + "}",
        "{}",
        '{"kind": {"kind": []}, "stages": [[], 1, null]}',
    ],
)
def test_recipes_of_anybody_are_answered(api, recipe) -> None:
    answer = api.post(RECIPE, files={"image": png(calotype=recipe)})
    assert answer.status_code == 200
    json.loads(answer.content, parse_constant=pytest.fail)


@pytest.mark.parametrize("files", [{"image": b""}, {"image": b"GIF89a"}, {"file": png()}])
def test_what_is_no_image(api, files) -> None:
    answer = api.post(RECIPE, files=files)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "image"


def test_a_body_that_is_no_image(api) -> None:
    for body in (b"", b"{}"):
        answer = api.post(RECIPE, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
    assert api.post(RECIPE, data={"image": "text"}).status_code == 415  # no form of files
