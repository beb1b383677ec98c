"""Images of captions, asked for by OpenAI's own client."""

from __future__ import annotations

import base64
import io

import openai
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def ask(served):
    """OpenAI's client, which checks every field of what comes."""
    with openai.OpenAI(
        base_url=f"{served}/v1", api_key="-", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_an_image_comes_in_the_size_asked_for(ask) -> None:
    answer = ask.images.with_raw_response.generate(
        prompt="a red fox", n=2, size="100x60", extra_body={"seed": 7}
    )
    found = answer.parse()
    assert [opened(one.b64_json).size for one in found.data] == [(100, 60)] * 2
    assert (found.size, found.output_format, found.quality) == ("100x60", "png", "medium")
    assert found.background == "opaque" and found.usage.total_tokens == 0
    assert answer.headers["x-seeds"] == "7,8" and "x-ignored-params" not in answer.headers
    assert [opened(one.b64_json).text["calotype"] for one in found.data]


def test_a_stream_has_previews_and_images(ask) -> None:
    stream = ask.images.generate(
        prompt="a red fox", n=2, size="96x96", stream=True, partial_images=2, extra_body={"seed": 3}
    )
    events = list(stream)
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert sorted(kinds) == ["completed"] * 2 + ["partial_image"] * 4
    partial = [event for event in events if event.type.endswith("partial_image")]
    assert sorted(event.partial_image_index for event in partial) == [0, 0, 1, 1]
    assert all(opened(event.b64_json).size == (96, 96) for event in events)
