"""Images changed, asked for by OpenAI's own client."""

from __future__ import annotations

import json

import openai
import pytest

HOLE = (8, 8, 24, 24)


def recipe(opened, found):
    return json.loads(opened(found.data[0].b64_json).text["calotype"])


def test_an_image_with_a_mask_is_filled(ask, opened, png) -> None:
    found = ask.images.edit(
        image=png(64, 48), mask=png(64, 48, hole=HOLE), prompt="a hat", extra_body={"seed": 5}
    )
    made = recipe(opened, found)
    assert made["kind"] == "inpaint" and made["seed"] == 5 and made["mask_sha256"]
    assert found.size == "64x48"


def test_an_images_own_hole_is_filled(ask, opened, png) -> None:
    found = ask.images.edit(image=png(64, 48, hole=HOLE), prompt="a hat")
    assert recipe(opened, found)["kind"] == "inpaint"


def test_without_a_hole_all_is_begun_again(ask, opened, png) -> None:
    found = ask.images.edit(image=[png(64, 48)], prompt="a hat", input_fidelity="high")
    assert recipe(opened, found)["kind"] == "image_to_image"


def test_another_size_is_cut_out(ask, opened, png) -> None:
    for mask in ({}, {"mask": png(64, 48, hole=HOLE)}):
        found = ask.images.edit(image=png(64, 48), prompt="a hat", size="96x96", **mask)
        assert found.size == "96x96" and opened(found.data[0].b64_json).size == (96, 96)


def test_numbers_and_truths_come_as_text(ask, png) -> None:
    stream = ask.images.edit(
        image=png(64, 48),
        prompt="a hat",
        n=2,
        stream=True,
        partial_images=1,
        output_compression=80,
        output_format="jpeg",
        extra_body={"seed": 2**60 + 1, "guidance_scale": 2.5, "stages": {"64": {"steps": 3}}},
    )
    assert stream.response.headers["x-seeds"] == f"{2**60 + 1},{2**60 + 2}"
    kinds = sorted(event.type for event in stream)
    assert kinds == ["image_edit.completed"] * 2 + ["image_edit.partial_image"] * 2


def test_an_image_is_varied(ask, opened, png) -> None:
    made = recipe(opened, ask.images.create_variation(image=png(64, 48), n=2, size="256x256"))
    assert made["kind"] == "vary" and (made["width"], made["height"]) == (256, 256)
    assert (
        recipe(opened, ask.images.create_variation(image=png(64, 48, hole=HOLE)))["kind"] == "vary"
    )


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"image": b"no image"}, "image"),
        ({"image": "two"}, "image"),
        ({"mask": "opaque"}, "mask"),
        ({"mask": "larger"}, "mask"),
        ({"n": 0}, "n"),
        ({"extra_body": {"stages": {"64": {}}, "what": 1}}, "what"),
        ({"extra_body": {"stages": "{"}}, "stages"),
        ({"extra_body": {"strength": 0}}, "strength"),
    ],
)
def test_what_is_wrong_is_named(ask, png, change, param) -> None:
    made = {"two": [png(8, 8), png(8, 8)], "opaque": png(64, 48), "larger": png(65, 48, hole=HOLE)}
    for name in ("image", "mask"):
        if isinstance(change.get(name), str):
            change = {**change, name: made[change[name]]}
    with pytest.raises(openai.BadRequestError) as found:
        ask.images.edit(**{"image": png(64, 48), "prompt": "a hat", **change})
    assert found.value.param == param and found.value.code


@pytest.mark.parametrize("images", [2, 3, 17, 40])
@pytest.mark.parametrize("field", ["image", "image[]"])
def test_several_images_are_refused_at_the_third_file(client, png, images, field) -> None:
    files = [(field, ("image.png", png(8, 8), "image/png"))] * images
    for edit in ("edits", "variations"):
        answer = client.post(f"/v1/images/{edit}", data={"prompt": "a hat"}, files=files)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (
            400,
            "image",
            "invalid_value",
        )
        assert "one image and one mask are taken" in error["message"]
        assert answer.headers["x-should-retry"] == "false"


def test_a_form_of_too_many_fields_is_told_as_such(client) -> None:
    field = b'--b\r\ncontent-disposition: form-data; name="f"\r\n\r\n1\r\n'
    head = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/images/edits", content=field * 65 + b"--b--\r\n", headers=head)
    assert answer.status_code == 400 and "many fields" in answer.json()["error"]["message"]


def test_a_mask_leaves_fidelity_without_effect(ask, png) -> None:
    answer = ask.images.with_raw_response.edit(
        image=png(64, 48, hole=HOLE), prompt="a hat", input_fidelity="high", markup=png(8, 8)
    )
    assert answer.headers["x-ignored-params"] == "input_fidelity,markup"


def test_json_is_no_form(client) -> None:
    answer = client.post("/v1/images/edits", json={"prompt": "a hat"})
    assert answer.status_code == 415 and answer.json()["error"]["code"] == "unsupported_media_type"
