"""Sampling that starts from the draft: exact denoisers of Gaussian data have known answers.

With images x ~ N(draft, s^2), each pixel alone, the probability-flow ODE is linear in y = z / alpha
and r = sigma / alpha: y - draft shrinks as sqrt(s^2 + r^2). From the draft with noise of r on it,
y = draft + r * eps, it ends at

    draft + s / sqrt(s^2 + r^2) * r * eps

so the spread is s * r / sqrt(s^2 + r^2): that of the data where r is large beside s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calotype.cascade import Cascade, image_to_image
from calotype.cascade.recipe import image_recipe, recipe_sampling
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import KnownPixels, StageEdit
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.network import DraftConfig, LevelConfig, UNetConfig
from calotype.config.sampling import MOST_VARIED_SIGMA, SamplingConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import from_dict, to_dict
from calotype.diffusion import PerSampleNoise, alpha_sigma
from calotype.errors import ConfigError, UsageError
from calotype.runtime import Runtime
from calotype.tasks.draft_folds import draft_of

SIDE, STD = 16, 0.1
EXACT = SamplingConfig(
    steps=100,
    sampler="dpmpp_2m",
    grid="karras",
    start="draft",
    sigma_max=0.7,
    sigma_min=0.001,
    threshold_percentile=None,
)
FEW = replace(EXACT, steps=3, sigma_min=0.02)


def stage_config(**changes: object) -> StageConfig:
    network = UNetConfig(
        levels=(
            LevelConfig(channels=8, blocks=1),
            LevelConfig(channels=8, blocks=1, self_attention=True),
        ),
        text_dim=16,
        head_dim=4,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=8, rank=4, resolution=SIDE),
    )
    settings = {"resolution": SIDE, "network": network, "parametrization": "x", "sampling": FEW}
    return StageConfig(**{**settings, **changes})  # type: ignore[arg-type]


def random_stage() -> Stage:
    torch.manual_seed(0)
    stage = Stage(stage_config())
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    draft = draft_of(stage)
    assert draft is not None
    draft.set_basis(0.1 * torch.randn(draft.basis.shape), 0.2 * torch.rand(draft.basis.shape[1]))
    return stage.eval()


def exact_stage() -> Stage:
    """A stage whose network estimates images ~ N(draft, STD^2) exactly; its own draft is random."""
    stage = random_stage()

    def bind(cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        assert cond.draft is not None  # made once, before the network is bound
        mean = cond.draft

        def predict(z: Tensor, logsnr: Tensor) -> Tensor:
            alpha, sigma = (v[:, None, None, None].to(z) for v in alpha_sigma(logsnr))
            gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
            return mean + gain * (z - alpha * mean)

        return predict

    stage.network.bind = bind  # type: ignore[assignment]
    return stage


def captions(*numbers: int) -> TextEmbedding:
    tokens = [
        torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(number)) for number in numbers
    ]
    return TextEmbedding(torch.cat(tokens), torch.ones(len(numbers), 3, dtype=torch.bool))


def draft_image(batch: int) -> Tensor:
    """Another smooth image for each row, in [-0.5, 0.5]."""
    ramp = torch.linspace(-0.5, 0.5, SIDE)
    colours = torch.linspace(-1, 1, 3 * batch).reshape(batch, 3, 1, 1)
    return colours * ramp[:, None] * ramp.sign()


def shrinkage(sigma: float) -> float:
    return STD / math.hypot(STD, sigma)


def sample(stage: Stage, cond: Conditioning, seeds: range, **options: object) -> Tensor:
    arguments: dict[str, object] = {"size": (SIDE, SIDE), "sampling": EXACT, **options}
    uncond = arguments.pop("uncond", None)
    return stage.sample(cond, uncond, PerSampleNoise(seeds), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "ddim"])
def test_the_ode_from_the_noised_draft_ends_where_it_must(sampler: str) -> None:
    draft, seeds = draft_image(8), range(8)
    eps = PerSampleNoise(seeds).normal(draft.shape)
    cond = Conditioning(captions(*seeds), draft=draft)
    sampled = sample(exact_stage(), cond, seeds, sampling=replace(EXACT, sampler=sampler))
    expected = draft + shrinkage(0.7) * 0.7 * eps
    # ddim is of first order: the spread is a little wrong yet.
    torch.testing.assert_close(sampled, expected, rtol=0, atol=0.02 if sampler == "ddim" else 2e-3)


@pytest.mark.parametrize("variety", [0.0, 0.5, 1.0])
def test_mean_and_spread_by_variety(variety: float) -> None:
    """At 1 the spread is that of the data; at 0 that of the noise the draft was given."""
    sampling = replace(EXACT, variety=variety, sigma_max=0.05)
    sigma = 0.05 ** (1 - variety) * MOST_VARIED_SIGMA**variety
    draft, seeds = draft_image(8), range(8)
    cond = Conditioning(captions(*seeds), draft=draft)
    error = sample(exact_stage(), cond, seeds, sampling=sampling) - draft
    assert error.std().item() == pytest.approx(shrinkage(sigma) * sigma, rel=0.03)
    assert error.mean().item() == pytest.approx(0.0, abs=4 * STD / error.numel() ** 0.5)
    if variety == 1:
        assert error.std().item() == pytest.approx(STD, rel=0.03)


def test_noise_and_ancestral_steps_give_the_data_what_it_lacks() -> None:
    """Starting from noise, and with fresh noise on the way, the spread is that of the data."""
    draft, seeds = draft_image(8), range(8)
    cond = Conditioning(captions(*seeds), draft=draft)
    noise = replace(EXACT, start="noise", sigma_max=80.0)
    for sampling in (noise, replace(EXACT, sampler="dpmpp_2m_sde")):
        error = sample(exact_stage(), cond, seeds, sampling=sampling) - draft
        assert error.std().item() == pytest.approx(STD, rel=0.05)


def test_guidance_starts_from_the_caption_s_draft_and_knows_that_of_the_null_caption() -> None:
    """Guided estimates are those of N(w d + (1 - w) d0, s^2), from a start around d."""
    stage, weight, seeds = exact_stage(), 1.5, range(3)
    cond = Conditioning(captions(*seeds))
    uncond = cond.null()
    own, null = (stage.with_draft(one).draft for one in (cond, uncond))
    assert own is not None and null is not None
    assert not torch.allclose(own, null) and torch.allclose(null[0], null[1])
    mean = weight * own + (1 - weight) * null
    eps = PerSampleNoise(seeds).normal(own.shape)
    expected = mean + shrinkage(0.7) * (own + 0.7 * eps - mean)
    sampling = replace(EXACT, guidance_weight=weight)
    sampled = sample(stage, cond, seeds, uncond=uncond, sampling=sampling)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-3)


def test_the_start_is_the_clipped_draft() -> None:
    stage, seeds = exact_stage(), range(2)
    drafts = torch.full((2, 3, SIDE, SIDE), 3.0)
    eps = PerSampleNoise(seeds).normal(drafts.shape)
    states = stage.steps(
        Conditioning(captions(*seeds), draft=drafts),
        None,
        PerSampleNoise(seeds),
        size=(SIDE, SIDE),
        sampling=EXACT,
    )
    first = next(iter(states))
    alpha, sigma = (float(v) for v in alpha_sigma(first.logsnr))
    assert sigma / alpha == pytest.approx(0.7)
    torch.testing.assert_close(first.z, alpha * drafts.clamp(-1, 1) + sigma * eps)


@pytest.mark.parametrize("size", [(8, 8), (16, 32), (48, 16)])
def test_other_sizes_start_from_the_resized_draft(size: tuple[int, int]) -> None:
    stage, seeds = random_stage(), range(2)
    cond = stage.with_draft(Conditioning(captions(*seeds)))
    assert cond.draft is not None
    states = stage.steps(cond, None, PerSampleNoise(seeds), size=size, sampling=FEW)
    first = next(iter(states))
    eps = PerSampleNoise(seeds).normal((2, 3, *size))
    alpha, sigma = (float(v) for v in alpha_sigma(first.logsnr))
    resized = torch.nn.functional.interpolate(cond.draft.clamp(-1, 1), size, mode="bilinear")
    torch.testing.assert_close(first.z, alpha * resized + sigma * eps)


def test_the_draft_is_made_once_a_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, seeds = random_stage(), range(2)
    make, calls = stage.network.make_draft, []
    monkeypatch.setattr(stage.network, "make_draft", lambda *x: calls.append(0) or make(*x))
    cond = Conditioning(captions(*seeds))
    for weight, interval in ((1.0, None), (2.0, None), (2.0, (0.1, 0.5))):
        calls.clear()
        sampling = replace(FEW, guidance_weight=weight, guidance_interval=interval)
        sample(stage, cond, seeds, uncond=cond.null(), sampling=sampling)
        assert len(calls) == 1  # for both, with and without the caption


def test_in_painting_starts_from_the_draft() -> None:
    draft, seeds = draft_image(2), range(2)
    mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., :5] = True
    known = torch.full_like(draft, -0.9)
    eps = PerSampleNoise(seeds).normal(draft.shape)
    cond = Conditioning(captions(*seeds), draft=draft)
    edit = StageEdit(known=KnownPixels(known, mask, seamless=False))
    sampled = sample(exact_stage(), cond, seeds, edit=edit)
    expected = torch.where(mask, known, draft + shrinkage(0.7) * 0.7 * eps)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("start_time", [0.2, 0.8, 1.0])
def test_an_edit_brings_its_own_start_and_level(start_time: float) -> None:
    """Not the draft, and not capped at sigma_max: `strength` says how much is sampled anew."""
    stage, seeds = random_stage(), range(2)
    image = draft_image(2)
    edit = StageEdit(start=image, start_time=start_time)
    states = stage.steps(
        Conditioning(captions(*seeds)),
        None,
        PerSampleNoise(seeds),
        size=(SIDE, SIDE),
        sampling=FEW,
        edit=edit,
    )
    first = next(iter(states))
    alpha, sigma = (float(v) for v in alpha_sigma(first.logsnr))
    expected = min(math.tan(math.pi / 2 * start_time), MOST_VARIED_SIGMA)
    assert sigma / alpha == pytest.approx(expected, rel=1e-3)
    eps = PerSampleNoise(seeds).normal(image.shape)
    torch.testing.assert_close(first.z, alpha * image + sigma * eps)


def test_an_edit_from_a_lower_time_lowers_the_draft_s_level() -> None:
    stage = random_stage()
    levels = stage.levels(FEW, StageEdit(start_time=0.2))
    assert math.exp(-levels[0] / 2) == pytest.approx(math.tan(math.pi / 10), rel=1e-3)
    levels = stage.levels(FEW, StageEdit(start_time=0.9))
    assert math.exp(-levels[0] / 2) == pytest.approx(0.7)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return Cascade("bytes:16", [random_stage()], name="drafted")


def test_the_same_image_alone_and_in_a_batch(cascade: Cascade) -> None:
    sampling = {SIDE: replace(FEW, guidance_weight=2.0, variety=0.3)}
    texts, seeds = ["a fox", "", "two large owls"], [1, 2, 3]
    together = cascade.sample(texts, seeds=seeds, sampling=sampling).images[0]
    for row, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        alone = cascade.sample([text], seeds=[seed], sampling=sampling).images[0]
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-4)
    parts = cascade.sample(texts, seeds=seeds, sampling=sampling, max_batch=2).images[0]
    torch.testing.assert_close(together, parts, rtol=0, atol=1e-4)


def test_image_to_image_of_a_cascade_ignores_the_draft(cascade: Cascade) -> None:
    image, noise = draft_image(1), replace(FEW, start="noise", sigma_max=MOST_VARIED_SIGMA)
    images = [
        image_to_image(
            cascade, image, ["a fox"], strength=0.5, seeds=[1], sampling={SIDE: sampling}
        ).images[0]
        for sampling in (FEW, noise)
    ]
    torch.testing.assert_close(*images)


def test_the_recipe_holds_start_and_variety(cascade: Cascade) -> None:
    sampling = replace(FEW, variety=0.25)
    plan = cascade.plan(["a fox"], seeds=[1], sampling={SIDE: sampling})
    recipe = image_recipe(cascade, plan, 0, Runtime("cpu", "float32", 1))
    assert recipe_sampling(recipe) == {SIDE: sampling}


def test_older_settings_start_from_noise() -> None:
    older = to_dict(replace(FEW, start="noise", sigma_max=80.0))
    del older["start"], older["variety"]
    sampling = from_dict(older, SamplingConfig)
    assert (sampling.start, sampling.variety, sampling.first_sigma) == ("noise", 0.0, 80.0)


def test_variety_raises_the_level_geometrically_and_never_lowers_it() -> None:
    sigmas = [replace(FEW, variety=v).first_sigma for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert sigmas[0] == 0.7 and sigmas[-1] == MOST_VARIED_SIGMA
    for low, middle, high in zip(sigmas, sigmas[1:], sigmas[2:], strict=False):
        assert middle == pytest.approx(math.sqrt(low * high))
    assert replace(FEW, sigma_max=50.0, variety=1.0).first_sigma == 50.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "draft"}, 'got start="draft" with grid="schedule"; expected grid="karras"'),
        ({"variety": 0.5}, 'got variety=0.5 with start="noise"; expected variety=0, or start='),
        ({**to_dict(FEW), "variety": 1.5}, "got variety=1.5; expected a number from 0.0 to 1.0"),
        ({**to_dict(FEW), "variety": float("nan")}, "variety=nan"),
        ({"start": "image"}, "got SamplingConfig.start='image'; expected one of"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(changes, SamplingConfig)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_network_without_a_draft_cannot_start_from_one() -> None:
    network = replace(stage_config().network, draft=None)
    message = 'got start="draft" for the 16 stage, whose network has no draft; expected start='
    with pytest.raises(ConfigError, match=message):
        stage_config(network=network)
    stage = Stage(stage_config(network=network, sampling=SamplingConfig()))
    with pytest.raises(ConfigError, match=message):
        Cascade("bytes:16", [stage]).plan(["a fox"], seeds=[1], sampling={SIDE: FEW})
    with pytest.raises(ConfigError, match=message):
        sample(stage, Conditioning(captions(1)), range(1))


def test_a_draft_needs_text() -> None:
    with pytest.raises(UsageError, match="no text to make a draft of; expected a TextEmbedding"):
        sample(random_stage(), Conditioning(), range(1))
