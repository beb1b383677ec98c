"""Images of captions, asked for by OpenAI's own client."""

from __future__ import annotations

import json

import openai
import pytest


def test_an_image_comes_in_the_size_asked_for(ask, opened) -> None:
    answer = ask.images.with_raw_response.generate(
        prompt="a red fox", n=2, size="100x60", extra_body={"seed": 7}
    )
    found = answer.parse()
    assert [opened(one.b64_json).size for one in found.data] == [(100, 60)] * 2
    assert (found.size, found.output_format, found.quality) == ("100x60", "png", "medium")
    assert found.background == "opaque" and found.usage.total_tokens == 0
    assert answer.headers["x-seeds"] == "7,8" and "x-ignored-params" not in answer.headers
    assert answer.headers["x-request-id"]
    assert [opened(one.b64_json).text["calotype"] for one in found.data]


def test_a_class_is_a_field_of_ours(ask, opened) -> None:
    answer = ask.images.generate(prompt="", size="64x64", extra_body={"class": "noto"})
    assert json.loads(opened(answer.data[0].b64_json).text["calotype"])["class"] == "noto"


@pytest.mark.parametrize("name", ["gpt-image-2", "gpt-image-1-mini", "dall-e-3", "default", None])
def test_the_names_that_clients_have_built_in_are_the_default(ask, name) -> None:
    assert ask.images.generate(prompt="a fox", model=name).data[0].b64_json


@pytest.mark.parametrize(("form", "name"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_formats(ask, opened, form, name) -> None:
    found = ask.images.generate(prompt="a fox", output_format=form, output_compression=60)
    assert opened(found.data[0].b64_json).format == name and found.output_format == form


def test_a_stream_has_previews_and_images(ask, opened) -> None:
    stream = ask.images.generate(
        prompt="a red fox", n=2, size="96x96", stream=True, partial_images=2, extra_body={"seed": 3}
    )
    assert stream.response.headers["x-seeds"] == "3,4"
    events = list(stream)
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert sorted(kinds) == ["completed"] * 2 + ["partial_image"] * 4
    partial = [event for event in events if event.type.endswith("partial_image")]
    assert sorted(event.partial_image_index for event in partial) == [0, 0, 1, 1]
    assert all(opened(event.b64_json).size == (96, 96) for event in events)
    assert sorted(event.seed for event in events if event.type.endswith("completed")) == ["3", "4"]


def test_previews_without_a_size_have_the_images(ask, opened) -> None:
    events = list(ask.images.generate(prompt="a fox", stream=True, partial_images=3))
    assert len({opened(event.b64_json).size for event in events}) == 1 and len(events) > 1


def test_large_seeds_stay_exact(ask) -> None:
    for seed in (2**63 - 1, str(2**63 - 1)):
        answer = ask.images.with_raw_response.generate(prompt="a fox", extra_body={"seed": seed})
        assert answer.headers["x-seeds"] == str(2**63 - 1)


def test_fields_without_effect_are_named(ask) -> None:
    answer = ask.images.with_raw_response.generate(
        prompt="a fox",
        user="me",
        style="vivid",
        moderation="low",
        quality="high",
        output_compression=50,
        partial_images=2,
        extra_body={"num_inference_steps": 3, "strength": 0.5},
    )
    assert answer.headers["x-ignored-params"] == (
        "moderation,output_compression,partial_images,quality,strength,style,user"
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 11}, "n"),
        ({"size": "8x64"}, "size"),
        ({"size": "2049x64"}, "size"),
        ({"size": "large"}, "size"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"extra_body": {"cfg_scale": 7}}, "cfg_scale"),
        ({"extra_body": {"seed": -1}}, "seed"),
        ({"extra_body": {"seed": 2**63 - 1}, "n": 2}, "seed"),
        ({"extra_body": {"num_inference_steps": 257}}, "num_inference_steps"),
        ({"extra_body": {"stages": {"base": {"steps": 1}}}}, None),
        ({"prompt": "refuse steps"}, "num_inference_steps"),
        ({"prompt": "x" * 32_001}, "prompt"),
    ],
)
def test_what_is_wrong_is_named(ask, fields, param) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        ask.images.generate(**{"prompt": "a fox", **fields})
    error = found.value
    assert param is None or error.param == param
    assert error.type == "invalid_request_error" and error.code
    assert error.response.headers["x-should-retry"] == "false"


def test_another_model_is_not_there(ask) -> None:
    with pytest.raises(openai.NotFoundError) as found:
        ask.images.generate(prompt="a fox", model="flux")
    assert (found.value.code, found.value.param) == ("model_not_found", "model")


def test_models_are_listed(ask) -> None:
    assert [one.id for one in ask.models.list()] == ["default", "other"]
    assert ask.models.retrieve("other").owned_by == "calotype"
    assert ask.models.retrieve("gpt-image-2").id == "gpt-image-2"
    with pytest.raises(openai.NotFoundError):
        ask.models.retrieve("flux")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"nan", b'{"prompt": NaN}', b"\xff", b"[" * 99999]
)
def test_bodies_that_are_no_request(client, body) -> None:
    answer = client.post(
        "/v1/images/generations", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_json"


def test_links_open_without_a_key(ask, client) -> None:
    import httpx

    found = ask.images.generate(prompt="a fox", response_format="url", output_format="webp")
    (image,) = found.data
    assert image.b64_json is None and image.url.startswith("http://127.0.0.1:")
    answer = httpx.get(image.url)
    assert answer.headers["content-type"] == "image/webp" and answer.content[8:12] == b"WEBP"


def test_links_begin_with_the_public_address(fake, serve_at) -> None:
    with serve_at(fake(public_url="https://images.example/")) as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="-")
        (image,) = client.images.generate(prompt="a fox", response_format="url").data
        assert image.url.startswith("https://images.example/links/")
