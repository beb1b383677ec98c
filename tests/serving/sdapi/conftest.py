"""Clients of the API: theirs, and plain ones."""

from __future__ import annotations

import base64
import io
import json

import httpx
import pytest
import webuiapi
from PIL import Image


@pytest.fixture(scope="module")
def api(served):
    """Their client for Python, whose constructor asks for scripts."""
    found = webuiapi.WebUIApi(baseurl=f"{served}/sdapi/v1")
    assert not found.has_controlnet
    return found


@pytest.fixture(scope="module")
def ask(served):
    """Send bodies as they are: `ask("txt2img", {...})`; the answer, its info as data."""
    with httpx.Client(base_url=f"{served}/sdapi/v1", timeout=30) as client:

        def send(path, body=None, *, status=200, **more):
            method = "GET" if body is None else "POST"
            answer = client.request(method, f"/{path}", json=body, **more)
            assert answer.status_code == status, answer.text
            found = answer.json()
            if isinstance(found, dict) and "info" in found and path.endswith("2img"):
                found["info"] = json.loads(found["info"])
                found["recipes"] = [_recipe_of(text) for text in found["images"]]
            if isinstance(found, dict):
                found["ignored"] = answer.headers.get("x-ignored-params", "")
            return found

        yield send


@pytest.fixture(scope="session")
def opened():
    """Open an image of an answer."""
    return _opened


@pytest.fixture(scope="session")
def recipe_of():
    """Read what an image of an answer says of how it was made."""
    return _recipe_of


def _opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def _recipe_of(text):
    return json.loads(_opened(text).text["calotype"])
