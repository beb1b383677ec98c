import copy
import re

import numpy as np
import pytest
import torch

import calotype.cascade.cascade as module
from calotype.cascade import Cascade, Stage, StageEdit
from calotype.cascade.sizes import padded_lowres_size
from calotype.config.network import EfficientUNetConfig, LevelConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import CalotypeError, ConfigError, UsageError

CAPTIONS = ["a red fox", "pizza", ""]
SEEDS = [1, 2, 3]


def sampled(cascade, captions=CAPTIONS, seeds=SEEDS, **options):
    return cascade.sample(captions, seeds=seeds, **options).images


def test_shapes_ranges_and_seeds(cascade):
    result = cascade.sample(CAPTIONS, seeds=SEEDS)
    assert [tuple(x.shape) for x in result.images] == [(3, 3, s, s) for s in (8, 16, 32)]
    assert all(x.abs().max() <= 1 and x.dtype == torch.float32 for x in result.images)
    assert result.seeds == (1, 2, 3)
    assert [image.size for image in result.pil()] == [(32, 32)] * 3


def test_equal_calls_are_bit_equal_and_seeds_and_captions_matter(cascade):
    first, again = sampled(cascade), sampled(cascade)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other_seed = sampled(cascade, seeds=[4, 2, 3])
    assert (other_seed[0][0] - first[0][0]).abs().mean() > 1e-3
    torch.testing.assert_close(other_seed[0][1:], first[0][1:], atol=1e-4, rtol=0)
    other_caption = sampled(cascade, captions=["a blue whale", "pizza", ""])
    assert (other_caption[0][0] - first[0][0]).abs().mean() > 1e-4


def test_an_image_is_the_same_alone_and_in_any_batch(cascade):
    together = sampled(cascade)
    in_parts = sampled(cascade, max_batch=2)
    for row in range(3):
        alone = sampled(cascade, captions=[CAPTIONS[row]], seeds=[SEEDS[row]])
        for one, many, parts in zip(alone, together, in_parts, strict=True):
            torch.testing.assert_close(one[0], many[row], atol=1e-4, rtol=0)
            torch.testing.assert_close(one[0], parts[row], atol=1e-4, rtol=0)


def test_batch_invariance_is_exact_up_to_rounding_in_float64(cascade, monkeypatch):
    wide = Cascade("bytes:16", [copy.deepcopy(s).double() for s in cascade.stages])
    normal = module.PerSampleNoise.normal
    monkeypatch.setattr(
        module.PerSampleNoise, "normal", lambda self, shape: normal(self, shape).double()
    )
    embed = wide._embed

    def embed_wide(captions):
        text = embed(captions)
        return type(text)(text.tokens.double(), text.mask)

    monkeypatch.setattr(wide, "_embed", embed_wide)
    base = wide.stages[0]
    seen = {}
    for captions, seeds in ((CAPTIONS, SEEDS), (CAPTIONS[:1], SEEDS[:1])):
        plan = wide.plan(captions, seeds=seeds, stop_at=8)
        for preview in wide.generate(plan):
            seen[len(seeds)] = preview.state.z
    assert base.network.stem.weight.dtype == seen[1].dtype == torch.float64
    torch.testing.assert_close(seen[1][0], seen[3][0], atol=1e-6, rtol=0)


def test_stop_at_and_sampling_per_stage(cascade):
    whole = sampled(cascade)
    stopped = sampled(cascade, stop_at=16)
    assert len(stopped) == 2
    torch.testing.assert_close(stopped[1], whole[1])
    seven = SamplingConfig(steps=7, sampler="ddim")
    changed = sampled(cascade, stop_at=16, sampling={16: seven})
    assert torch.equal(changed[0], whole[0]) and not torch.equal(changed[1], whole[1])
    defaults = [stage.config.sampling for stage in cascade.stages]
    assert torch.equal(sampled(cascade, sampling=defaults)[2], whole[2])


def test_steps_are_previews_of_every_stage_in_order(cascade):
    steps = cascade.steps(CAPTIONS, seeds=SEEDS, max_batch=2)
    seen = []
    while True:
        try:
            preview = next(steps)
        except StopIteration as end:
            result = end.value
            break
        assert torch.is_grad_enabled()
        rows = preview.rows.stop - preview.rows.start
        assert len(preview.state.estimate.x_hat) == rows
        seen.append((preview.stage, preview.rows.start, preview.state.index, preview.steps))
    expected = [(0, start, i, 4) for start in (0, 2) for i in range(5)]
    expected += [(s, start, i, 2) for s in (1, 2) for start in (0, 2) for i in range(3)]
    assert seen == expected
    torch.testing.assert_close(result.images[2], sampled(cascade)[2], atol=1e-4, rtol=0)


def test_closing_the_generator_cancels(cascade, monkeypatch):
    calls = []
    bound = Stage._bound
    monkeypatch.setattr(Stage, "_bound", lambda s, c: calls.append(s) or bound(s, c))
    steps = cascade.steps(CAPTIONS, seeds=SEEDS)
    next(steps)
    steps.close()
    assert set(calls) == {cascade.stages[0]}


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (48, 16)])
def test_other_sizes(cascade, size):
    images = sampled(cascade, size=size)
    assert [tuple(x.shape[2:]) for x in images] == [(size[0] // f, size[1] // f) for f in (4, 2, 1)]


def test_unconditional_never_builds_an_encoder(unconditional, cascade, monkeypatch):
    monkeypatch.setattr(module, "build_text_encoder", lambda spec: pytest.fail("built"))
    images = sampled(unconditional, captions=["", ""], seeds=[1, 2])
    assert tuple(images[1].shape) == (2, 3, 16, 16)
    with pytest.raises(UsageError, match="takes no captions"):
        sampled(unconditional, captions=["fox"], seeds=[1])
    # A cascade with text needs none either where all captions are empty.
    fresh = Cascade("bytes:16", cascade.stages)
    assert torch.equal(sampled(fresh, ["", " "], [1, 2])[2], sampled(cascade, ["", ""], [1, 2])[2])


def test_negative_captions_act_only_with_guidance(cascade):
    base = cascade.stages[0].config.sampling
    plain = sampled(cascade, stop_at=8)
    negative = sampled(cascade, stop_at=8, negative_captions=["blue"] * 3)
    assert (plain[0] - negative[0]).abs().mean() > 1e-4
    off = {8: SamplingConfig(steps=base.steps, sampler=base.sampler)}
    assert torch.equal(
        sampled(cascade, stop_at=8, sampling=off)[0],
        sampled(cascade, stop_at=8, sampling=off, negative_captions=["blue"] * 3)[0],
    )


def test_upscale_repeats_what_sample_did(cascade):
    images = sampled(cascade)
    again = cascade.upscale(images[0], CAPTIONS, seeds=SEEDS).images
    assert torch.equal(again[0], images[1]) and torch.equal(again[1], images[2])
    last = cascade.upscale(images[1], CAPTIONS, seeds=SEEDS).images
    assert len(last) == 1
    torch.testing.assert_close(last[0], images[2])


@pytest.mark.parametrize("size", [(7, 5), (8, 13), (1, 1), (31, 20)])
def test_upscale_takes_any_size(cascade, size):
    lowres = torch.rand(1, 3, *size) * 2 - 1
    images = cascade.upscale(lowres, [""], seeds=[0]).images
    factor = 4 if max(size) < 16 else 2
    assert tuple(images[-1].shape) == (1, 3, size[0] * factor, size[1] * factor)


def test_a_super_resolution_cascade_only_upscales(cascade):
    upper = Cascade("bytes:16", cascade.stages[1:])
    with pytest.raises(UsageError, match="use upscale"):
        sampled(upper)
    assert len(upper.upscale(torch.zeros(1, 3, 8, 8), ["x"], seeds=[1]).images) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1]}, "1 seeds for 3 captions"),
        ({"seeds": [1, 2, -1]}, "2.63-1"),
        ({"seeds": [1, 2, 2**63]}, "2.63-1"),
        ({"seeds": [1, 2, True]}, "integer"),
        ({"seeds": 5}, "list"),
        ({"captions": "fox"}, "a list"),
        ({"captions": []}, "at least one"),
        ({"captions": ["a", "b", 3]}, "string"),
        ({"stop_at": 64}, r"\[8, 16, 32\]"),
        ({"size": (30, 32)}, "multiples of 8 pixels, e.g. 32x24$"),  # WIDTHxHEIGHT
        ({"size": (99999, 99999)}, "e.g. 2048x2048$"),
        ({"size": (9, 10**30)}, "e.g. 524288x8$"),
        ({"size": (0, 32)}, "multiples of 8"),
        ({"size": 32}, "height, width"),
        ({"size": (32,)}, "height, width"),
        ({"size": (8192, 8192)}, "at most"),
        ({"sampling": [SamplingConfig()]}, "1 sampling for the 3 stages"),
        ({"sampling": {64: SamplingConfig()}}, "stage 64"),
        ({"sampling": {8: SamplingConfig(aug_level=0.2)}}, "aug_level=0.2 for the 8 stage"),
        ({"sampling": SamplingConfig()}, "sampling of type SamplingConfig .*expected a mapping"),
        ({"negative_captions": ["x"]}, "1 negative captions"),
        ({"max_batch": 0}, "max_batch=0"),
        ({"edits": {8: StageEdit(start=torch.zeros(1, 3, 9, 8))}}, "start of shape"),
        ({"edits": {8: StageEdit(start_time=0.0)}}, "start_time"),
    ],
)
def test_wrong_input_is_refused_before_computing(cascade, monkeypatch, options, message):
    monkeypatch.setattr(Stage, "steps", lambda *a, **k: pytest.fail("computed"))
    arguments = {"captions": CAPTIONS, "seeds": SEEDS, **options}
    captions = arguments.pop("captions")
    with pytest.raises(UsageError, match=message):
        cascade.steps(captions, **arguments)


@pytest.mark.parametrize("asked", [(99999, 99999), (30, 3000), (5, 4 * 10**6), (1, 1)])
def test_advised_sizes_are_sampled(cascade, asked):
    with pytest.raises(UsageError) as caught:
        cascade.plan(["x"], seeds=[1], size=asked)
    width, height = map(int, str(caught.value).rpartition(" ")[2].split("x"))
    assert cascade.plan(["x"], seeds=[1], size=(height, width)).stages[-1].size == (height, width)
    assert (height < width) == (asked[0] < asked[1])


def test_seeds_may_be_of_numpy(cascade):
    plan = cascade.plan(CAPTIONS, seeds=np.arange(3))
    assert plan.seeds == (0, 1, 2)
    assert all(type(seed) is int for seed in plan.seeds)


@pytest.mark.parametrize(("source", "resolution"), [(7, 58), (8, 32), (24, 64)])
def test_sizes_to_upscale_are_the_smallest_that_fit(source, resolution):
    network = EfficientUNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=0)
    config = StageConfig(resolution=resolution, lowres_resolution=source, network=network)
    side = 3 * source
    fits = [n for n in range(side, 2 * side) if n * resolution % (source * 2) == 0]
    assert padded_lowres_size((side, side + 1), [config]) == (side, fits[1])


def test_wrong_images_to_upscale(cascade):
    for lowres, message in [
        (torch.zeros(3, 8, 8), "shape"),
        (torch.zeros(2, 3, 8, 8), "2 images and 1"),
        (torch.full((1, 3, 8, 8), 2.0), "outside"),
        (torch.full((1, 3, 8, 8), float("nan")), "outside"),
        (torch.zeros(1, 3, 4096, 4096), "at most"),
    ]:
        with pytest.raises(UsageError, match=message):
            cascade.upscale(lowres, ["x"], seeds=[1])
    with pytest.raises(TypeError, match="unknown option"):
        cascade.sample(["x"], seeds=[1], step=3)


def test_stages_must_fit(cascade):
    with pytest.raises(ConfigError, match="lowres_resolution=8"):
        Cascade("bytes:16", [cascade.stages[0], cascade.stages[2]])


def test_hostile_captions_draw(cascade):
    captions = ["\0a\0", "\ud800 lone", "x" * 10_000_000]
    images = sampled(cascade, captions=captions, stop_at=8)
    assert images[0].isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_12_numbers_that_are_not_finite_are_no_image(cascade, value):
    stage = cascade.stages[-1]
    name, parameter = list(stage.named_parameters())[-1]
    before = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.fill_(value)
        message = f"the {stage.config.resolution} stage sampled numbers.*{re.escape(name)}"
        with pytest.raises(CalotypeError, match=message):
            cascade.sample(["a fox"], seeds=[0])
    finally:
        with torch.no_grad():
            parameter.copy_(before)
