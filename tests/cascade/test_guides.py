"""Guides of a cascade's base: an exact gradient, for captions, batches, edits and every sampler."""

from dataclasses import dataclass, replace

import pytest
import torch

from calotype.cascade import Cascade, Stage
from calotype.cascade.edit import EditSettings, plan_edit
from calotype.cascade.guide import Pull
from calotype.cascade.results import drain
from calotype.errors import UsageError

CAPTIONS, SEEDS = ["bright", "dark", "bright"], [1, 2, 3]


@dataclass(frozen=True)
class Brightness:
    """log p(B | z), for normal pixels: how bright images are, measured as B with an error."""

    wanted: torch.Tensor

    def __call__(self, z, logsnr):
        alpha, noise = torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr)
        whole = alpha.square() * 0.36 + noise
        expected = alpha * 0.36 / whole * z.mean((1, 2, 3))
        return -(expected - self.wanted.to(z)).square() / (2 * 0.36 * noise / whole / 192 + 2e-3)

    def rows(self, rows):
        return Brightness(self.wanted[rows])


class BrightnessGuide:
    name = "the guide brightness"

    def __init__(self, resolution=8):
        self.resolution = resolution

    def log_likelihood(self, captions, seeds):
        return Brightness(torch.tensor([0.9 if text == "bright" else -0.9 for text in captions]))


@pytest.fixture
def gaussian(cascade):
    """A cascade whose base has no more to say than that pixels are normal: it predicts v = 0."""
    return Cascade(
        "bytes:16", [Stage(cascade.stages[0].config), *cascade.stages[1:]], name="gaussian"
    )


def pull(scale=1.0, form="score", **changes):
    return Pull(BrightnessGuide(**changes), scale, form)


def settings(cascade, sampler="dpmpp_2m", **changes):
    own = cascade.stages[0].config.sampling
    return {8: replace(own, sampler=sampler, steps=8, **changes)}


def brightness(sample):
    return sample.images[0].mean((1, 2, 3))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"])
def test_every_sampler_follows_the_guide_of_each_caption(sampler, gaussian):
    how = {"sampling": settings(gaussian, sampler), "stop_at": 8, "seeds": SEEDS}
    plain = brightness(gaussian.sample(CAPTIONS, **how))
    guided = brightness(gaussian.sample(CAPTIONS, **how, pulls=[pull()]))
    assert ((guided - plain) * torch.tensor([1, -1, 1]) > 0.1).all()


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m_sde"])
def test_ancestral_steps_follow_it_in_their_mean(sampler, gaussian):
    how = {"sampling": settings(gaussian, sampler), "stop_at": 8, "seeds": SEEDS}
    plain = brightness(gaussian.sample(CAPTIONS, **how))
    guided = brightness(gaussian.sample(CAPTIONS, **how, pulls=[pull(form="mean")]))
    assert ((guided - plain) * torch.tensor([1, -1, 1]) > 0.1).all()


def test_parts_of_a_batch_are_pulled_as_in_the_whole(cascade):
    how = {"stop_at": 16, "seeds": SEEDS, "pulls": [pull()]}
    whole = cascade.sample(CAPTIONS, **how).images
    parts = cascade.sample(CAPTIONS, **how, max_batch=2).images
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_a_scale_of_zero_is_off(cascade):
    plain = cascade.sample(CAPTIONS, seeds=SEEDS, stop_at=8).images[0]
    pulled = cascade.sample(CAPTIONS, seeds=SEEDS, stop_at=8, pulls=[pull(0.0)]).images[0]
    assert torch.equal(plain, pulled)


def test_weights_need_no_gradient_and_get_none(cascade):
    cascade.sample(["bright"], seeds=[1], stop_at=8, pulls=[pull()])
    assert all(p.grad is None for stage in cascade.stages for p in stage.parameters())


@pytest.mark.parametrize(("sampler", "form"), [("heun", "score"), ("ddpm", "mean")])
def test_edits_are_pulled_but_for_what_they_keep(sampler, form, gaussian):
    image = torch.linspace(-1, 1, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    how = {"seeds": [5], "stop_at": 8, "sampling": settings(gaussian, sampler)}

    def edited(**options):
        edit = EditSettings(mask=mask)
        return drain(
            gaussian.generate(plan_edit(gaussian, image, edit, ["bright"], **how, **options))
        )

    plain, guided = edited().images[0], edited(pulls=[pull(form=form)]).images[0]
    kept = mask.expand_as(plain)
    assert torch.equal(guided[kept], image[kept])
    assert (guided - plain)[~kept].mean() > 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pulls": [pull(resolution=16)]}, "16x16 for a base that samples 8x8"),
        ({"pulls": [pull()], "size": (16, 24)}, "8x8 for a base that samples 24x16"),
        ({"pulls": [pull(form="mean")]}, "the sampler dpmpp_2m, whose steps have no variance"),
    ],
)
def test_a_stage_that_cannot_be_pulled_is_refused(wrong, message, cascade):
    with pytest.raises(UsageError, match=message):
        cascade.plan(["bright"], seeds=[1], stop_at=8, **wrong)


def test_enlarging_is_not_pulled(cascade):
    with pytest.raises(UsageError, match="which enlarges; expected a base of 8"):
        cascade.plan_upscale(torch.zeros(1, 3, 8, 8), ["bright"], seeds=[1], pulls=[pull()])
