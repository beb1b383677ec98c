"""Images of prompts, asked for by their own client and in the bodies that others send."""

from __future__ import annotations

import io
import json

import pytest
from sd_parsers import ParserManager


def test_their_client_gets_images_and_what_they_are(api) -> None:
    found = api.txt2img(
        prompt="a red fox", negative_prompt="blurry", seed=7, batch_size=2, width=96, height=64
    )
    assert [image.size for image in found.images] == [(96, 64)] * 2
    assert found.info["all_seeds"] == [7, 8] and found.info["seed"] == 7
    assert found.info["all_prompts"] == ["a red fox"] * 2
    assert found.info["all_negative_prompts"] == ["blurry"] * 2
    assert (found.info["width"], found.info["height"]) == (96, 64)
    assert (found.info["cfg_scale"], found.info["steps"], found.info["batch_size"]) == (7, 20, 2)
    assert found.parameters["prompt"] == "a red fox"
    texts = [image.text["parameters"] for image in found.images]
    assert found.info["infotexts"] == texts


def test_other_programs_read_the_texts(api) -> None:
    found = api.txt2img(prompt="a red fox, (sly)", negative_prompt="a dog", seed=9, steps=10)
    buffer = io.BytesIO()
    found.image.save(buffer, "PNG", pnginfo=_info(found.info["infotexts"][0]))
    for source in (found.image, buffer):
        read = ParserManager().parse(source)
        assert [prompt.value for prompt in read.prompts] == ["a red fox, (sly)"]
        assert [prompt.value for prompt in read.negative_prompts] == ["a dog"]
        (sampler,) = read.samplers
        assert (sampler.parameters["seed"], sampler.parameters["steps"]) == ("9", "2")


def _info(text):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", text)
    return info


OPEN_WEBUI = {"prompt": "a fox", "batch_size": 1, "width": 512, "height": 512, "steps": 50}
LIBRECHAT = {
    "prompt": "a fox",
    "negative_prompt": "blurry",
    "cfg_scale": 4.5,
    "steps": 22,
    "width": 1024,
    "height": 1024,
}
SILLY_TAVERN = {
    "url": "http://127.0.0.1:8000",
    "auth": "",
    "prompt": "a fox",
    "negative_prompt": "blurry",
    "sampler_name": "DDIM",
    "scheduler": "normal",
    "steps": 20,
    "cfg_scale": 7,
    "width": 512,
    "height": 512,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 1,
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "seed": None,
    "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}


@pytest.mark.parametrize(
    ("body", "steps", "guidance"),
    [(OPEN_WEBUI, 10, 3.0), (LIBRECHAT, 4, 1 + 3.5 / 6 * 2), (SILLY_TAVERN, 4, 3.0)],
    ids=["Open WebUI", "LibreChat", "SillyTavern"],
)
def test_bodies_of_clients(ask, opened, body, steps, guidance) -> None:
    found = ask("txt2img", body, headers={"authorization": ""})
    (image,) = found["images"]
    assert opened(image).size == (body["width"], body["height"])
    sampling = found["recipes"][0]["stages"][0]["sampling"]
    assert sampling["steps"] == steps
    assert sampling["guidance_weight"] == pytest.approx(guidance)
    assert found["info"]["steps"] == body["steps"]
    assert found["info"]["infotexts"][0].split("\n")[-1].startswith("Steps: ")


@pytest.mark.parametrize("empty", ["", "Basic", "Basic Og=="])
def test_an_empty_key_is_none(ask, empty) -> None:
    """As Open WebUI and SillyTavern send where they were given none."""
    ask("options", headers={"authorization": empty})


def test_what_nobody_asked_for_is_not_called_ignored(ask, api) -> None:
    assert ask("txt2img", LIBRECHAT)["ignored"] == ""
    assert ask("txt2img", OPEN_WEBUI)["ignored"] == ""
    told = ask("txt2img", SILLY_TAVERN)["ignored"].split(",")
    assert "scheduler" in told and "override_settings.CLIP_stop_at_last_layers" in told
    assert not {"denoising_strength", "hr_upscaler", "restore_faces", "seed"} & set(told)


def test_fields_without_effect_are_named(ask) -> None:
    found = ask(
        "txt2img",
        {
            "prompt": "a (red:1.3) fox <lora:foxes:0.8> (in snow)",
            "negative_prompt": "((dog:1.2), cat:0.5)",
            "sampler_name": "Euler a",
            "restore_faces": True,
            "tiling": False,
            "styles": ["anime"],
            "alwayson_scripts": {"ADetailer": {"args": [True, {}]}, "Refiner": {"args": [False]}},
            "x\r\ny": 1,
        },
    )
    assert found["ignored"].split(",") == [
        "prompt.lora",
        "prompt.weights",
        "restore_faces",
        "styles",
        "alwayson_scripts.ADetailer",
        "x__y",
        "sampler_name",
    ]
    assert found["recipes"][0]["caption"] == "a red fox (in snow)"
    assert found["recipes"][0]["negative_caption"] == "dog, cat"
    assert found["info"]["prompt"] == "a (red:1.3) fox <lora:foxes:0.8> (in snow)"
    assert found["info"]["extra_generation_params"] == {"Sampler asked for": "Euler a"}
    assert found["info"]["sampler_name"] == "DDPM"


@pytest.mark.parametrize(
    ("name", "sampler"),
    [("DDIM", "ddim"), ("DPM++ 2M Karras", "dpmpp_2m"), ("Automatic", "ddpm"), ("", "ddpm")],
)
def test_samplers_that_we_have(ask, name, sampler) -> None:
    found = ask("txt2img", {"prompt": "a fox", "sampler_name": name})
    assert found["recipes"][0]["stages"][0]["sampling"]["sampler"] == sampler
    assert found["ignored"] == ""


def test_a_second_pass_is_a_larger_image(ask, opened) -> None:
    body = {"prompt": "a fox", "width": 64, "height": 48, "enable_hr": True}
    assert opened(ask("txt2img", {**body, "hr_scale": 1.5})["images"][0]).size == (96, 72)
    assert opened(ask("txt2img", body)["images"][0]).size == (128, 96)
    found = ask("txt2img", {**body, "hr_resize_x": 100, "hr_resize_y": 90, "hr_upscaler": "Latent"})
    assert opened(found["images"][0]).size == (100, 90) and found["ignored"] == "hr_upscaler"
    assert opened(ask("txt2img", {**body, "hr_resize_x": 256})["images"][0]).size == (256, 192)
    found = ask("txt2img", {**body, "width": 1000, "hr_scale": 3}, status=400)
    assert "3000x144 by enable_hr" in found["detail"]


def test_without_a_size_it_is_theirs(ask, opened) -> None:
    assert opened(ask("txt2img", {"prompt": "a fox"})["images"][0]).size == (512, 512)


def test_seeds(ask) -> None:
    one, other = (ask("txt2img", {"seed": -1, "n_iter": 2, "batch_size": 2}) for _ in range(2))
    assert one["info"]["seed"] != other["info"]["seed"]
    assert one["info"]["all_seeds"] == [recipe["seed"] for recipe in one["recipes"]]
    assert len(one["images"]) == 4
    largest = ask("txt2img", {"seed": 2**63 - 1})
    assert largest["info"]["all_seeds"] == [2**63 - 1]


def test_an_earlier_image_is_made_again_by_its_text(ask) -> None:
    body = {"prompt": "a fox", "seed": 5, "steps": 30, "cfg_scale": 4, "width": 80, "height": 48}
    first = ask("txt2img", {**body, "sampler_name": "DDIM"})
    again = ask("txt2img", {"infotext": first["info"]["infotexts"][0], "width": 80, "height": 48})
    assert again["recipes"] == first["recipes"]


def test_a_class_is_asked_for_by_its_name_or_by_the_text_of_an_image(ask) -> None:
    first = ask("txt2img", {"class": "noto", "seed": 5})
    assert first["recipes"][0]["class"] == first["parameters"]["class"] == "noto"
    assert first["ignored"] == ""
    body = {"infotext": first["info"]["infotexts"][0]}
    assert ask("txt2img", body)["recipes"] == first["recipes"]
    other = ask("txt2img", {**body, "class": "fluent"})
    assert other["recipes"][0]["class"] == "fluent"
    refused = ask("txt2img", {"class": "noto", "prompt": "refuse class"}, status=400)
    assert "got a bad class" in refused["detail"]


def test_a_text_of_theirs_is_read_in_their_scale(ask) -> None:
    text = "a fox\nNegative prompt: a dog\nSteps: 30, Sampler: Euler a, CFG scale: 4, Seed: 8"
    (made,) = ask("txt2img", {"infotext": text, "prompt": "a cat"})["recipes"]
    assert (made["caption"], made["negative_caption"], made["seed"]) == ("a cat", "a dog", 8)
    sampling = made["stages"][0]["sampling"]
    assert (sampling["steps"], sampling["guidance_weight"]) == (6, 2.0)


def test_no_images_are_sent_where_none_are_wanted(ask) -> None:
    found = ask("txt2img", {"prompt": "a fox", "send_images": False, "seed": 4})
    assert found["images"] == [] and found["info"]["all_seeds"] == [4]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"width": 15}, "width: "),
        ({"height": 2049}, "height: "),
        ({"batch_size": 8, "n_iter": 5}, "batch_size times n_iter: "),
        ({"batch_size": 0}, "batch_size: "),
        ({"steps": 257}, "steps: "),
        ({"seed": -2}, "seed: "),
        ({"prompt": "x" * 32_001}, "prompt: "),
        ({"prompt": ["x"]}, "prompt: "),
        ({"class": ""}, "class: "),
        ({"override_settings": {"sd_model_checkpoint": "none"}}, "expected one of"),
        ({"prompt": "refuse size"}, "got a bad size; expected a good one"),
    ],
)
def test_what_does_not_fit_is_refused_in_their_shape(ask, body, told) -> None:
    found = ask("txt2img", body, status=400)
    assert told in found["detail"] and found["errors"] == found["detail"]
    assert set(found) == {"error", "detail", "body", "errors", "ignored"}


def test_errors_of_the_framework_have_their_shape(ask) -> None:
    assert ask("nothing", status=404)["error"] == "not_found"
    assert ask("txt2img", status=405)["error"] == "invalid_request"
    assert ask("txt2img", [1], status=400)["error"] == "invalid_value"


def test_what_fails_while_it_is_made(ask) -> None:
    found = ask("txt2img", {"prompt": "fail by memory"}, status=500)
    assert (found["error"], found["detail"]) == ("out_of_memory", "memory is out")


@pytest.mark.parametrize(("cfg", "weight", "steps"), [("linear", 2.0, 2), ("exact", 4.0, 10)])
def test_scales_are_theirs_or_exact(serve_at, fake, recipe_of, cfg, weight, steps) -> None:
    import httpx

    with serve_at(fake(cfg=cfg)) as (address, _):
        body = {"prompt": "a fox", "cfg_scale": 4, "steps": 10}
        found = httpx.post(f"{address}/sdapi/v1/txt2img", json=body).json()
    sampling = recipe_of(found["images"][0])["stages"][0]["sampling"]
    assert (sampling["guidance_weight"], sampling["steps"]) == (weight, steps)
    info = json.loads(found["info"])
    assert (info["cfg_scale"], info["steps"]) == (4, 10)


def test_guidance_below_one_is_not_below_none(ask) -> None:
    found = ask("txt2img", {"prompt": "a fox", "cfg_scale": 0})
    weight = found["recipes"][0]["stages"][0]["sampling"]["guidance_weight"]
    assert weight == pytest.approx(1 - 2 / 6)


def test_their_number_of_steps_is_never_none(ask) -> None:
    found = ask("txt2img", {"prompt": "a fox", "steps": 1})
    assert found["recipes"][0]["stages"][0]["sampling"]["steps"] == 1
