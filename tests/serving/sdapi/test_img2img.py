"""Images made of others: sources and masks reach the engine as their API means them."""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image


def noise(width, height):
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values, "RGB")


def mask_of(width, height, box):
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return mask


def as_text(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def digest(values):
    return hashlib.sha256(values).hexdigest()


SOURCE = noise(64, 48)
HOLE = mask_of(64, 48, (10, 5, 30, 25))
BODY = {"prompt": "a fox", "init_images": [as_text(SOURCE)], "seed": 3}


def test_their_client_begins_a_source_again(api, recipe_of) -> None:
    found = api.img2img(images=[SOURCE], prompt="a fox", seed=5, width=64, height=48)
    assert found.image.size == (64, 48) and found.info["all_seeds"] == [5]
    assert found.info["denoising_strength"] == 0.75
    assert found.parameters["init_images"] is None
    made = recipe_of(found.json["images"][0])
    assert made["kind"] == "image_to_image"
    assert made["blobs"] == [digest(SOURCE.convert("RGBA").tobytes())]


def test_their_client_fills_a_hole(api, recipe_of) -> None:
    found = api.img2img(
        images=[SOURCE], mask_image=HOLE, prompt="a fox", width=64, height=48, mask_blur=0
    )
    made = recipe_of(found.json["images"][0])
    assert made["kind"] == "inpaint"
    assert made["blobs"][1] == digest(HOLE.tobytes())


def test_masks_may_be_inverted_or_have_alpha(ask) -> None:
    mask = as_text(HOLE)
    inverted = ask("img2img", {**BODY, "mask": mask, "inpainting_mask_invert": 1})
    values = (255 - np.asarray(HOLE)).tobytes()
    assert inverted["recipes"][0]["blobs"][1] == digest(values)
    clear = Image.new("RGBA", HOLE.size)  # theirs: what is opaque is made anew
    clear.putalpha(HOLE)
    found = ask("img2img", {**BODY, "mask": f"data:image/png;base64,{as_text(clear)}"})
    assert found["recipes"][0]["blobs"][1] == digest(HOLE.tobytes())


def test_without_a_size_it_is_the_sources(ask, opened) -> None:
    found = ask("img2img", {**BODY, "include_init_images": True})
    assert opened(found["images"][0]).size == (64, 48)
    assert found["parameters"]["init_images"] == BODY["init_images"]


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_sources_and_masks_are_brought_to_the_size(ask, opened, mode) -> None:
    body = {**BODY, "mask": as_text(HOLE), "resize_mode": mode, "width": 48, "height": 48}
    found = ask("img2img", body)
    assert opened(found["images"][0]).size == (48, 48)
    wide = {0: "stretch", 1: "crop", 2: "fill", 3: "stretch"}[mode]
    assert found["recipes"][0]["blobs"] == expected(wide)


def expected(fit):
    from calotype.serving.front.uploads import Upload, fitted

    found = []
    for image in (SOURCE.convert("RGBA"), HOLE.convert("RGBA")):
        upload = fitted(Upload("", *image.size, image.tobytes()), 48, 48, fit)
        found.append(upload.pixels)
    hole = np.where(found[1][..., 0] >= 128, 255, 0).astype(np.uint8)
    return [digest(found[0].tobytes()), digest(hole.tobytes())]


@pytest.mark.parametrize(
    ("more", "request_"),
    [
        ({}, {"strength": None, "mask_blur": 4, "crop": True, "padding": 0.5}),
        ({"inpainting_fill": 1, "mask_blur": 0}, {"strength": 0.75, "mask_blur": 0}),
        ({"inpainting_fill": 1, "denoising_strength": 1}, {"strength": None}),
        ({"inpaint_full_res": False}, {"crop": False}),
        ({"inpaint_full_res": True, "inpaint_full_res_padding": 32}, {"padding": 32 / 20}),
        ({"inpaint_full_res_padding": 0}, {"padding": 0.5}),
    ],
)
def test_settings_of_holes(more, request_) -> None:
    from calotype.serving.sdapi.fields import ImageToImage
    from calotype.serving.sdapi.images import padding_of
    from calotype.serving.sdapi.meaning import Served, kind_of_edit, meaning

    stage = {"steps": 4, "sampler": "ddpm", "guidance_weight": 3.0, "settings": {}}
    model = {"name": "m", "stages": [stage], "samplers": ["ddpm"], "largest_side": 64}
    call = ImageToImage(**{**BODY, "mask": "x", **more})
    padding = padding_of(hole(), call.inpaint_full_res_padding)
    request = meaning(call, Served([model]), kind_of_edit(call, padding=padding)).request
    assert {name: getattr(request, name) for name in request_} == request_


def hole():
    from calotype.serving.front.jobs import Mask

    return Mask("", *HOLE.size, HOLE.tobytes())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"init_images": []}, "got 0 init_images"),
        ({"init_images": BODY["init_images"] * 2}, "got 2 init_images"),
        ({"init_images": ["http://127.0.0.1/fox.png"]}, "addresses are not fetched"),
        ({"init_images": ["!"]}, "no base64"),
        ({"mask": as_text(Image.new("L", (64, 48)))}, "nothing is to change"),
        ({"denoising_strength": 0}, "changes nothing"),
        ({"denoising_strength": 1.5}, "denoising_strength: "),
        ({"resize_mode": 4}, "resize_mode: "),
    ],
)
def test_what_does_not_fit_is_refused(ask, change, told) -> None:
    assert told in ask("img2img", {**BODY, **change}, status=400)["detail"]


@pytest.mark.parametrize("bad", ["!", "", "https://127.0.0.1/x.png", "R0lGODlh", "iVBORw0KGgp4"])
@pytest.mark.parametrize(
    ("field", "code"), [("init_images", "invalid_image"), ("mask", "invalid_mask")]
)
def test_what_is_no_image_is_told_by_the_field_it_came_in(ask, field, code, bad) -> None:
    found = ask("img2img", {**BODY, field: [bad] if field == "init_images" else bad}, status=400)
    assert found["error"] == code and found["detail"].startswith(f"{field}: ")
    assert found["errors"] == found["detail"] and "source" not in found["detail"]
