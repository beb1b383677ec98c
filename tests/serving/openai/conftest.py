"""OpenAI's clients, pointed at a server with the fake engine."""

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


@pytest.fixture
def opened():
    """An image from base64."""
    return lambda text: Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.fixture
def png():
    """Make a PNG: `png(64, 48, hole=(8, 8, 24, 24))`, the hole transparent."""

    def make(width, height, *, hole=None, colour=(200, 120, 40, 255)):
        image = Image.new("RGBA", (width, height), colour)
        if hole is not None:
            image.paste((0, 0, 0, 0), hole)
        found = io.BytesIO()
        image.save(found, "PNG")
        return found.getvalue()

    return make
