"""Inverted edits: the same caption gives the image back, at every stage."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calotype.cascade import Cascade, StageEdit
from calotype.cascade.edit import EditSettings, Resampling, plan_edit
from calotype.cascade.results import CascadeSample, drain
from calotype.cascade.stage_edit import Inversion
from calotype.config.sampling import SamplingConfig
from calotype.errors import UsageError

FINE = {"steps": 6, "sampler": "ddim", "grid": "karras", "threshold_percentile": None}
# The largest sigma/alpha at which a network of random weights is tame enough to be followed back.
SAMPLING = {
    8: SamplingConfig(**FINE, sigma_max=0.5, sigma_min=0.01),
    16: SamplingConfig(**FINE, sigma_max=0.2, sigma_min=0.005),
    32: SamplingConfig(**FINE, sigma_max=0.2, sigma_min=0.005),
}


def small(image: Tensor, side: int) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(image, side)


def smooth(count: int = 1) -> Tensor:
    """Images well within [-1, 1], where estimates are not clipped."""
    ramp = torch.linspace(-0.4, 0.4, 32)
    colours = torch.linspace(-1, 1, 3 * count).reshape(count, 3, 1, 1)
    return colours * ramp[:, None] * ramp.cos()


def edited(
    cascade: Cascade, image: Tensor, captions: list[str], **options: object
) -> CascadeSample:
    settings = options.pop("settings")
    options = {"sampling": SAMPLING, "seeds": list(range(len(captions))), **options}
    return drain(cascade.generate(plan_edit(cascade, image, settings, captions, **options)))


def distance(sample: CascadeSample, image: Tensor) -> list[float]:
    return [float((one - small(image, one.shape[-1])).abs().max()) for one in sample.images]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_same_caption_gives_the_image_back_at_every_stage(cascade, guidance) -> None:
    image = small(smooth(), 16)
    sampling = {r: replace(SAMPLING[r], guidance_weight=guidance) for r in (8, 16)}
    errors = []
    for refine in (0, 20):
        settings = EditSettings(invert=True, refine=refine, source_caption="a fox")
        options = {"settings": settings, "sampling": sampling, "stop_at": 16}
        errors.append(distance(edited(cascade, image, ["a fox"], **options), image))
    assert min(errors[0]) > 0.02
    assert errors[1][0] < 1e-4 and errors[1][1] < 2e-3, errors


def test_an_inverted_image_keeps_more_than_a_noised_one(cascade: Cascade) -> None:
    """Another caption, from the same level: random noise replaces what it hides."""
    image = smooth()
    inverted = EditSettings(invert=True, refine=4, strength=0.6, source_caption="a fox")
    noised = EditSettings(strength=0.6)
    near, far = (
        edited(cascade, image, ["pizza"], settings=settings) for settings in (inverted, noised)
    )
    assert max(distance(near, image)) < 0.5 * min(distance(far, image))
    assert not torch.equal(near.images[0], small(image, 8))


def test_rows_are_inverted_as_they_would_be_alone(cascade: Cascade) -> None:
    """Each with the noise of its own seed on its low-resolution image."""
    images, settings = smooth(3), EditSettings(invert=True, source_caption="a fox")
    sampling = {r: replace(s, aug_level=0.1 if r > 8 else 0.0) for r, s in SAMPLING.items()}
    options = {"settings": settings, "sampling": sampling}
    together = edited(cascade, images, ["x", "a fox", ""], max_batch=2, **options)
    alone = edited(cascade, images[2:], [""], seeds=[2], **options)
    for one, other in zip(together.images, alone.images, strict=True):
        torch.testing.assert_close(one[2:], other, rtol=0, atol=1e-4)
    again = edited(cascade, images[2:], [""], seeds=[5], **options)
    assert torch.equal(again.images[0], alone.images[0])
    assert not torch.equal(again.images[-1], alone.images[-1])


def test_known_pixels_have_the_last_word(cascade: Cascade) -> None:
    image, keep = smooth(), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    keep[..., :16] = True
    settings = EditSettings(mask=keep, invert=True, source_caption="a fox")
    made = edited(cascade, image, ["pizza"], settings=settings).images[-1]
    assert torch.equal(made[..., :16], image[..., :16])
    assert not torch.equal(made[..., 16:], image[..., 16:])


def test_previews_count_the_inversion_s_steps_too(cascade: Cascade) -> None:
    settings = EditSettings(invert=True)
    options = {"seeds": [1], "sampling": {8: SAMPLING[8]}, "stop_at": 8}
    plan = plan_edit(cascade, small(smooth(), 8), settings, ["x"], **options)
    previews = list(cascade.generate(plan))
    assert [preview.state.index for preview in previews] == list(range(13))
    assert {preview.steps for preview in previews} == {12}
    levels = [float(preview.state.logsnr) for preview in previews]
    assert levels[:6] == levels[6:12][::-1] and math.isinf(levels[12])


def test_sampling_takes_back_the_steps_of_the_inversion(cascade: Cascade) -> None:
    """By ddim where nothing is said, and guided away from the source's caption."""
    settings = EditSettings(invert=True, source_caption="a fox")
    plan = plan_edit(cascade, smooth(), settings, ["x"], seeds=[1])
    assert [stage.sampling.sampler for stage in plan.stages] == ["ddim"] * 3
    assert plan.stages[0].sampling.steps == cascade.stages[0].config.sampling.steps
    assert plan.negatives == ("a fox",)
    given = {"negative_captions": ["y"], "sampling": {16: SAMPLING[16]}}
    plan = plan_edit(cascade, smooth(), settings, ["x"], seeds=[1], **given)
    assert plan.negatives == ("y",) and plan.stages[1].sampling == SAMPLING[16]


def test_an_unconditional_cascade_inverts_as_well(unconditional: Cascade) -> None:
    settings = EditSettings(invert=True, refine=20)
    sampling = {16: SAMPLING[16], 8: replace(SAMPLING[8], sigma_max=0.1)}
    image = small(smooth(), 16)
    made = edited(unconditional, image, [""], settings=settings, sampling=sampling)
    assert max(distance(made, image)) < 2e-3


def test_what_does_not_fit_is_refused(cascade: Cascade) -> None:
    for changes in ({"refine": 2}, {"refine": -1, "invert": True}):
        with pytest.raises(UsageError, match="refine"):
            EditSettings(**changes)
    with pytest.raises(UsageError, match="invert with resampling"):
        EditSettings(invert=True, resampling=Resampling())
    heun = {8: replace(SAMPLING[8], sampler="heun")}
    with pytest.raises(UsageError, match="'heun' from an image's own noise"):
        plan_edit(cascade, smooth(), EditSettings(invert=True), ["x"], seeds=[1], sampling=heun)
    with pytest.raises(UsageError, match="expected a start"):
        cascade.plan(["x"], seeds=[1], edits={8: StageEdit(inversion=Inversion(("x",)))})
    edit = StageEdit(start=torch.zeros(1, 3, 8, 8), inversion=Inversion(("x", "y")))
    with pytest.raises(UsageError, match="2 captions of sources for 1"):
        cascade.plan(["x"], seeds=[1], edits={8: edit}, stop_at=8, sampling={8: SAMPLING[8]})
