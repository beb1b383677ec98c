"""The embedded cascade behind OpenAI's client: what comes is what was asked for."""

from __future__ import annotations

import io
import json

import numpy as np
import openai
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real(serve_at):
    from calotype.serving.front.settings import ServeSettings

    with (
        serve_at(ServeSettings()) as (address, _),
        openai.OpenAI(
            base_url=f"{address}/v1", api_key="-", max_retries=5, _strict_response_validation=True
        ) as client,
    ):
        yield client


def test_previews_become_the_image(real, opened) -> None:
    events = list(
        real.images.generate(
            prompt="a red fox",
            size="200x100",
            stream=True,
            partial_images=3,
            extra_body={"seed": 1},
        )
    )
    assert [getattr(event, "partial_image_index", 9) for event in events] == [0, 1, 2, 9]
    looks = [np.asarray(opened(event.b64_json).convert("RGB"), float) for event in events]
    assert {look.shape for look in looks} == {(100, 200, 3)}
    away = [np.abs(look - looks[-1]).mean() for look in looks]
    assert away[0] > away[1] > away[2]


def test_what_a_mask_keeps_stays_to_the_byte(real, opened) -> None:
    made = real.images.generate(prompt="a red fox", size="64x64", extra_body={"seed": 1})
    source, mask = io.BytesIO(), Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (16, 16, 48, 48))
    before = opened(made.data[0].b64_json).convert("RGB")
    before.save(source, "PNG")
    shape = io.BytesIO()
    mask.save(shape, "PNG")
    found = real.images.edit(
        image=source.getvalue(), mask=shape.getvalue(), prompt="a green cactus", quality="low"
    )
    after = np.asarray(opened(found.data[0].b64_json).convert("RGB"))
    changed = (after != np.asarray(before)).any(-1)
    kept = np.asarray(mask)[..., 3] == 255
    assert not changed[kept].any() and changed[~kept].mean() > 0.5


def test_quality_and_steps_reach_the_sampler(real, opened) -> None:
    def steps(**fields):
        made = real.images.generate(prompt="a red fox", size="64x64", **fields)
        recipe = json.loads(opened(made.data[0].b64_json).text["calotype"])
        return recipe["stages"][0]["sampling"]["steps"]

    own = steps()
    assert steps(quality="low") == round(own / 2) and steps(quality="high") == 2 * own
    assert steps(extra_body={"num_inference_steps": 3}) == 3
    assert steps(extra_body={"stages": {"64": {"steps": 2}}}, quality="high") == 2
