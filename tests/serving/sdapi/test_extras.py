"""Larger versions of images, and what is written in them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

VALUES = np.random.default_rng(1).integers(0, 256, (32, 40, 3), np.uint8)
SOURCE = Image.fromarray(VALUES)


def as_text(image, **more):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **more)
    return base64.b64encode(buffer.getvalue()).decode()


def larger(ask, **more):
    return ask("extra-single-image", {"image": as_text(SOURCE), **more})


def test_their_client_gets_a_larger_version_by_the_model(api) -> None:
    found = api.extra_single_image(SOURCE, upscaler_1="calotype", upscaling_resize=4)
    assert found.image.size == (160, 128) and found.image.text["calotype"]
    assert found.info == "Upscaler: calotype, Size: 160x128"


def test_their_upscalers_mean_the_model(ask, opened) -> None:
    found = larger(ask, upscaler_1="R-ESRGAN 4x+", upscaling_resize=4, gfpgan_visibility=0.5)
    assert "calotype" in opened(found["image"]).text
    assert found["html_info"].endswith("asked for: R-ESRGAN 4x+")
    assert found["ignored"] == "gfpgan_visibility,upscaler_1"


def test_no_upscaler_changes_nothing(api) -> None:
    found = api.extra_single_image(SOURCE)
    assert (np.asarray(found.image) == VALUES).all() and not found.image.info


def test_plain_upscalers(ask, opened) -> None:
    nearest = opened(larger(ask, upscaler_1="Nearest", upscaling_resize=2)["image"])
    assert (np.asarray(nearest) == VALUES.repeat(2, 0).repeat(2, 1)).all()
    smooth = opened(larger(ask, upscaler_1="Lanczos", upscaling_resize=1.5)["image"])
    assert smooth.size == (60, 48)


def test_models_do_not_shrink(ask, opened) -> None:
    found = larger(ask, upscaler_1="calotype", upscaling_resize=0.5)
    assert opened(found["image"]).size == (20, 16) and "Lanczos" in found["html_info"]


@pytest.mark.parametrize(("crop", "size"), [(True, (100, 100)), (False, (125, 100))])
def test_a_size_is_filled_or_covered(ask, opened, crop, size) -> None:
    asked = {"resize_mode": 1, "upscaling_resize_w": 100, "upscaling_resize_h": 100}
    found = larger(ask, upscaler_1="Nearest", upscaling_crop=crop, **asked)
    assert opened(found["image"]).size == size


def test_too_large(ask) -> None:
    body = {"image": as_text(Image.new("RGB", (600, 4))), "upscaler_1": "Lanczos"}
    told = ask("extra-single-image", {**body, "upscaling_resize": 8}, status=400)["detail"]
    assert "got 600x4 to make it 4800x32" in told
    assert "no PNG" in ask("extra-single-image", {"image": "eA=="}, status=400)["detail"]


def test_png_info_of_ours_by_their_client(api, ask) -> None:
    made = api.txt2img(prompt='a "red" fox, sly', negative_prompt="a dog", seed=6, steps=10)
    text = made.image.text["parameters"]
    assert api.png_info(made.image).info == text
    found = ask("png-info", {"image": made.json["images"][0]})
    assert found["items"] == {"parameters": text}
    assert found["parameters"]["Prompt"] == 'a "red" fox, sly'
    assert (found["parameters"]["Seed"], found["parameters"]["Steps"]) == ("6", "2")


def test_png_info_of_theirs_and_of_nobodys(ask) -> None:
    text = "a fox\nNegative prompt: a dog\nSteps: 20, Sampler: Euler a, Seed: 1, Size: 8x8"
    info = PngInfo()
    info.add_text("parameters", text)
    found = ask("png-info", {"image": as_text(SOURCE, pnginfo=info)})
    assert found["info"] == text and found["parameters"]["Sampler"] == "Euler a"
    found = ask("png-info", {"image": as_text(SOURCE)})
    assert (found["info"], found["items"], found["parameters"]) == ("", {}, {})


@pytest.mark.parametrize("path", ["extra-single-image", "png-info"])
@pytest.mark.parametrize("bad", ["!", "", "https://127.0.0.1/x.png"])
def test_what_is_no_image_is_told_by_its_field(ask, path, bad) -> None:
    found = ask(path, {"image": bad}, status=400)
    assert found["error"] == "invalid_image" and found["detail"].startswith("image: got ")
