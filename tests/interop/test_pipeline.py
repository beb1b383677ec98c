"""The diffusers call draws what the cascade draws, and says no to what it cannot do."""

import numpy as np
import pytest
import torch

from calotype.cascade import Cascade, Stage
from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.interop.diffusers import CalotypePipeline, PipelineOutput

LEVELS = (
    LevelConfig(channels=8, blocks=1),
    LevelConfig(channels=16, blocks=1, self_attention=True),
)


def random_stage(config, seed):
    torch.manual_seed(seed)
    stage = Stage(config)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return stage


@pytest.fixture(scope="module")
def pipeline():
    base = StageConfig(
        resolution=8,
        network=UNetConfig(levels=LEVELS, text_dim=16, head_dim=8),
        parametrization="v",
        sampling=SamplingConfig(steps=3, sampler="dpmpp_2m", guidance_weight=2.0),
    )
    enlarger = StageConfig(
        resolution=16,
        lowres_resolution=8,
        network=EfficientUNetConfig(levels=LEVELS, text_dim=16, head_dim=8),
        parametrization="v",
        sampling=SamplingConfig(steps=2, sampler="ddim"),
    )
    stages = [random_stage(base, 0), random_stage(enlarger, 1)]
    return CalotypePipeline(Cascade("bytes:16", stages, name="small"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seeds(count, seed=0):
    return torch.randint(2**63 - 1, (count,), generator=generator(seed)).tolist()


def test_images_are_those_of_the_cascade(pipeline):
    output = pipeline(
        ["a fox", "a cat"],
        negative_prompt="dull",
        num_inference_steps=4,
        guidance_scale=3.0,
        num_images_per_prompt=2,
        generator=generator(),
        output_type="pt",
    )
    base, enlarger = (stage.config.sampling for stage in pipeline.cascade.stages)
    drawn = pipeline.cascade.sample(
        ["a fox", "a fox", "a cat", "a cat"],
        seeds=seeds(4),
        negative_captions=["dull"] * 4,
        sampling=[SamplingConfig(steps=4, sampler=base.sampler, guidance_weight=3.0), enlarger],
    )
    assert isinstance(output, PipelineOutput)
    torch.testing.assert_close(output.images, (drawn.images[-1] + 1) / 2)
    assert output[0] is output.images


def test_output_types_show_the_same_images(pipeline):
    def call(kind, **options):
        return pipeline("a fox", generator=generator(), output_type=kind, **options)

    tensor, array, images = call("pt").images, call("np").images, call("pil").images
    assert tensor.shape == (1, 3, 16, 16) and array.shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(array[0], tensor[0].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(np.array(images[0]), (array[0] * 255).round().astype(np.uint8))
    assert np.array_equal(call("np", return_dict=False)[0], array)


def test_guidance_scale_one_is_off(pipeline):
    plain = pipeline("a fox", guidance_scale=1.0, generator=generator(), output_type="pt")
    away = pipeline(
        "a fox",
        guidance_scale=1.0,
        negative_prompt="dull",
        generator=generator(),
        output_type="pt",
    )
    assert torch.equal(plain.images, away.images)


def test_steps_and_weights_for_every_stage(pipeline):
    called = []

    def note(_, step, timestep, tensors):
        called.append((tensors["latents"].shape[-1], step, float(timestep)))
        return tensors

    pipeline(
        "a fox",
        num_inference_steps=[2, 3],
        guidance_scale=[1.0, 1.0],
        callback_on_step_end=note,
        generator=generator(),
    )
    assert [entry[:2] for entry in called] == [(8, 0), (8, 1), (16, 0), (16, 1), (16, 2)]
    times = [entry[2] for entry in called]
    assert times[0] == pytest.approx(999) and times[2] == pytest.approx(999)
    assert times[1] == pytest.approx(499.5)


def test_the_last_callback_sees_the_finished_images(pipeline):
    seen = {}

    def keep(_, step, timestep, tensors):
        seen.update(tensors)
        return {}

    output = pipeline(
        "a fox",
        callback_on_step_end=keep,
        callback_on_step_end_tensor_inputs=["images", "latents"],
        generator=generator(),
        output_type="pt",
    )
    assert set(seen) == {"images", "latents"}
    torch.testing.assert_close((seen["latents"].clamp(-1, 1) + 1) / 2, output.images)


def test_a_callback_can_cancel_but_not_replace(pipeline):
    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    with pytest.raises(Enough):
        pipeline("a fox", callback_on_step_end=stop)
    with pytest.raises(UsageError, match="another tensor"):
        pipeline("a fox", callback_on_step_end=lambda p, s, t, k: {"latents": k["latents"] * 0})


def test_one_generator_an_image(pipeline):
    both = pipeline(["a", "b"], generator=[generator(1), generator(2)], output_type="pt").images
    alone = pipeline("b", generator=generator(2), output_type="pt").images
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)


def test_without_generator_the_global_one_decides(pipeline):
    images = []
    for _ in range(2):
        torch.manual_seed(5)
        images.append(pipeline("a fox", output_type="pt").images)
    assert torch.equal(*images)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_type": "latent"}, "output_type"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt"),
        ({"num_inference_steps": [1]}, "2 stages"),
        ({"num_inference_steps": 0}, "steps"),
        ({"guidance_scale": [1.0, 2.0, 3.0]}, "2 stages"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"height": 16}, "both"),
        ({"height": 17, "width": 16}, "multiples"),
        ({"generator": [generator(), generator()]}, "generators"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "prompt_embeds"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline, options, words):
    with pytest.raises(UsageError, match=words):
        pipeline("a fox", **options)


def test_unknown_arguments_are_refused(pipeline):
    with pytest.raises(TypeError, match="cross_attention_kwargs"):
        pipeline("a fox", cross_attention_kwargs={})


def test_saved_and_loaded_it_draws_the_same(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "out")
    again = CalotypePipeline.from_pretrained(tmp_path / "out")
    options = {"output_type": "pt", "height": 16, "width": 32}
    images = [p("a fox", generator=generator(), **options).images for p in (pipeline, again)]
    torch.testing.assert_close(*images, atol=1e-5, rtol=0)
    assert images[0].shape == (1, 3, 16, 32)
    with pytest.raises(UsageError, match="safetensors"):
        CalotypePipeline.from_pretrained(tmp_path / "out", use_safetensors=False)
    with pytest.raises(UsageError, match="fp16"):
        pipeline.save_pretrained(tmp_path / "out", variant="bf16")


def test_half_size(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "whole")
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    size = [
        (tmp_path / name / "8" / "weights.safetensors").stat().st_size for name in ("whole", "half")
    ]
    assert size[1] < 0.7 * size[0]


def test_number_type_of_the_networks(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "out")
    again = CalotypePipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.bfloat16)
    assert {stage.compute_dtype for stage in again.cascade.stages} == {torch.bfloat16}
    assert again.to("cpu").device == torch.device("cpu")
