"""The embedded cascade behind webuiapi: their defaults do not spoil what it makes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import webuiapi
from PIL import Image
from sd_parsers import ParserManager

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real(serve_at):
    from calotype.serving.front.settings import ServeSettings

    with serve_at(ServeSettings()) as (address, _):
        yield webuiapi.WebUIApi(baseurl=f"{address}/sdapi/v1")


@pytest.fixture(scope="module")
def made(real):
    return real.txt2img(prompt="a red fox", seed=1, width=64, height=64)


def pixels(image):
    return np.asarray(image.convert("RGB"))


def test_their_defaults_are_the_models_own(real, made) -> None:
    from calotype.cascade.find import open_cascade

    recipe = json.loads(made.image.text["calotype"])
    base = recipe["stages"][0]["sampling"]
    own = open_cascade("default").config.stages[0].sampling
    assert (base["steps"], base["sampler"]) == (own.steps, own.sampler)
    assert base["guidance_weight"] == own.guidance_weight
    assert made.info["infotexts"] == [made.image.text["parameters"]]
    read = ParserManager().parse(made.image)
    assert [prompt.value for prompt in read.prompts] == ["a red fox"]
    assert read.samplers[0].parameters["seed"] == "1"


def test_a_text_makes_the_image_again(real, made) -> None:
    body = {"infotext": real.png_info(made.image).info, "width": 64, "height": 64}
    answer = real.session.post(f"{real.baseurl}/txt2img", json=body)
    again = real._to_api_result(answer)
    assert np.abs(pixels(again.image).astype(int) - pixels(made.image)).max() <= 2


def test_only_the_hole_changes(real, made) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 40, 40))
    sizes = {"width": 64, "height": 64, "mask_blur": 0}
    found = real.img2img([made.image], mask_image=mask, prompt="a blue bird", seed=2, **sizes)
    before, after, hole = pixels(made.image), pixels(found.image), np.asarray(mask) > 0
    assert (before[~hole] == after[~hole]).all() and (before[hole] != after[hole]).any()


def test_the_model_enlarges(real, made) -> None:
    found = real.extra_single_image(made.image, upscaler_1="calotype", upscaling_resize=4)
    assert found.image.size == (256, 256)
    small = np.asarray(found.image.convert("RGB").resize((64, 64), Image.Resampling.BOX), int)
    assert np.abs(small - pixels(made.image)).mean() < 10
