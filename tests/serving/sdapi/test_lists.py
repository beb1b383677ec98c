"""Models, options, samplers and what else clients ask for before they show anything."""

from __future__ import annotations

import pytest


def test_all_that_their_client_asks(api) -> None:
    assert [one["title"] for one in api.get_sd_models()] == ["default", "other"]
    assert api.util_get_sampler_names() == sorted(["Automatic", "DDIM", "DDPM", "DPM++ 2M"])
    assert api.util_get_scheduler_names() == ["automatic"]
    assert [one["name"] for one in api.get_upscalers()][-1] == "calotype"
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    for lacked in (
        api.get_latent_upscale_modes,
        api.get_sd_vae,
        api.get_loras,
        api.get_hypernetworks,
        api.get_face_restorers,
        api.get_realesrgan_models,
        api.get_prompt_styles,
    ):
        assert lacked() == []
    ram = api.get_memory()["ram"]
    assert 0 < ram["used"] < ram["total"]
    assert api.get_cmd_flags()["api"] is True
    assert api.refresh_checkpoints() is None
    assert (api.interrupt(), api.skip()) == ({}, {})
    api.util_wait_for_ready()


def test_a_model_is_chosen_and_given_back(api, recipe_of) -> None:
    before = api.get_options()
    api.util_set_model("othr")
    assert api.util_get_current_model() == "other"
    made = api.txt2img(prompt="a fox", width=64, height=64)
    assert made.info["sd_model_name"] == "other"
    assert recipe_of(made.json["images"][0])["model"] == {"name": "other"}
    assert api.set_options(before) is None
    assert api.util_get_current_model() == "default"


def test_a_model_of_one_request(api) -> None:
    other = {"sd_model_checkpoint": "other"}
    made = api.txt2img(prompt="a fox", width=64, height=64, override_settings=other)
    assert made.info["sd_model_name"] == "other"
    assert api.util_get_current_model() == "default"
    api.txt2img(
        prompt="a fox",
        width=64,
        height=64,
        override_settings=other,
        override_settings_restore_afterwards=False,
    )
    assert api.util_get_current_model() == "other"
    api.util_set_model("default")


def test_options_without_effect_are_named(ask, served) -> None:
    import httpx

    body = {**ask("options"), "samples_format": "webp", "new": 1}
    body.pop("ignored")
    answer = httpx.post(f"{served}/sdapi/v1/options", json=body)
    assert answer.json() is None and answer.headers["x-ignored-params"] == "samples_format,new"
    whole = ask("options")
    whole.pop("ignored")
    answer = httpx.post(f"{served}/sdapi/v1/options", json=whole)
    assert "x-ignored-params" not in answer.headers
    found = ask("options", {"sd_model_checkpoint": "none"}, status=400)
    assert "expected one of ['default', 'other']" in found["detail"]


@pytest.mark.slow
def test_before_an_engine_has_started(fake) -> None:
    from starlette.testclient import TestClient

    from calotype.serving.front.app import build_app

    command = (*fake().engine_command, "--start-seconds", "30")
    app = build_app(fake(engine_command=command))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        for path in ("options", "sd-models", "samplers", "txt2img"):
            body = {"prompt": "a fox"} if path == "txt2img" else None
            answer = client.request("POST" if body else "GET", f"/sdapi/v1/{path}", json=body)
            assert answer.status_code == 503 and answer.json()["error"] == "starting"
            assert answer.headers["retry-after"] == "2"
