"""Super-resolution trained on estimates of the stage before, against stages that know the truth."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from calotype.cascade.io import save_cascade
from calotype.cascade.stage import Stage
from calotype.config.data import DataConfig
from calotype.config.diffusion import LowresEstimatesConfig
from calotype.config.network import LevelConfig
from calotype.config.recipe import Recipe
from calotype.data.batch import BatchPlan
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.data.resize import area_resize
from calotype.diffusion import Estimate, alpha_sigma, broadcast_to_image, karras_levels
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.tasks.captions import build_encoder
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.estimates import LowresEstimates, check_estimates, denoised
from calotype.tasks.random_numbers import estimate_sigmas, step_numbers
from calotype.training import progress
from calotype.training.distributed import Group
from calotype.training.parallel import DDP, FSDP
from calotype.training.recipes import load_recipe
from calotype.training.state import TrainState
from calotype.training.step import train_step
from calotype.training.stream import joined, shortened

TINY = load_recipe("tiny").stages
TEXT = build_encoder("bytes:16", 16)
QUIET = {"grid_images": 0, "validation_images": 0}


def sr(number=1, *, crop=8, **changes):
    """A super-resolution stage of `tiny` on mirrored crops, with estimates of half of the rows."""
    settings = {"data": DataConfig(crop=crop, flip=True), **QUIET}
    estimates = LowresEstimatesConfig(model="default")
    settings |= {"lowres_estimates": estimates, "batch_size": 8, **changes}
    return dataclasses.replace(TINY[number], **settings)


def some(number=0):
    """A stage of `tiny` whose weights are all at work, frozen."""
    torch.manual_seed(number)
    stage = Stage(TINY[number].stage)
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return stage.requires_grad_(False).eval()


def taken(images, config, *, whole=True, **options):
    """The first batch."""
    stage = config.stage
    plan = BatchPlan(
        resolution=stage.resolution,
        lowres_resolution=stage.lowres_resolution,
        config=config.data,
        batch_size=config.batch_size,
        seed=0,
        whole_lowres=whole,
        **options,
    )
    source = open_source(images, resolution=stage.resolution, data=config.data)
    made = batches(source, plan, prefetch=0)
    batch = next(made)
    made.close()
    return batch


def drawn(config, estimates, batch):
    schedule = Stage(config.stage).schedule
    shape = torch.Size((batch.images, *batch.x.shape[1:]))
    return step_numbers(config, schedule, 0, shape=shape, estimated=estimates.shape(batch))


def every_row(config):
    changed = dataclasses.replace(config.lowres_estimates, fraction=1.0)
    return dataclasses.replace(config, lowres_estimates=changed)


@pytest.fixture
def told(monkeypatch):
    """What the network is told at each loss."""
    calls, loss = [], Stage.loss

    def watched(stage, x, cond, logsnr, eps, **objective):
        calls.append((x, cond, logsnr, eps))
        return loss(stage, x, cond, logsnr, eps, **objective)

    monkeypatch.setattr(Stage, "loss", watched)
    return calls


def test_a_base_that_knows_the_truth_gives_back_the_crop(images, monkeypatch):
    config = every_row(sr(batch_size=32))
    batch = taken(images, config)
    seen = []

    def exact(stage, cond):
        seen.append(cond)
        return lambda z, logsnr: Estimate(batch.whole_lowres)

    monkeypatch.setattr(Stage, "denoiser", exact)
    estimates = LowresEstimates(some(), steps=3)
    found = estimates(batch, TEXT(batch.captions), drawn(config, estimates, batch))
    assert batch.whole_lowres.shape == (32, 3, 8, 8) and found.shape == (32, 3, 4, 4)
    assert len(batch.places.unique(dim=0)) > 5
    torch.testing.assert_close(found, batch.lowres, atol=1e-6, rtol=0)
    assert seen[0].lowres is None and len(seen[0].text) == 32


def test_a_super_resolution_stage_is_told_the_crop_and_its_own_small_version(images, monkeypatch):
    config = every_row(sr(2, crop=16))
    batch = taken(images, config, whole=False)
    seen = []

    def exact(stage, cond):
        seen.append(cond)
        return lambda z, logsnr: Estimate(batch.lowres)

    estimates = LowresEstimates(some(1), steps=3)
    assert not estimates.of_whole_images
    draws = drawn(config, estimates, batch)
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "denoiser", exact)
        found = estimates(batch, TEXT(batch.captions), draws)
    assert torch.equal(found, batch.lowres)
    clean = estimates.stage.lowres_condition(
        area_resize(batch.lowres, 4), None, size=(8, 8), aug_level=0.0, noise=_Zeros()
    )
    assert torch.equal(seen[0].lowres, clean.lowres) and not seen[0].aug_level.any()
    # Whole images change nothing for such a stage.
    again = estimates(taken(images, config), TEXT(batch.captions), draws)
    assert torch.equal(again, estimates(batch, TEXT(batch.captions), draws))
    assert not torch.equal(again, batch.lowres)


class _Zeros:
    def normal(self, shape):
        return torch.zeros(tuple(shape))


def test_steps_follow_the_exact_path_of_gaussian_data_from_each_level():
    """N(0, s^2): the flow from sigma keeps z / sqrt(alpha^2 s^2 + sigma^2)."""
    s, sigmas = 0.5, (0.1, 0.4, 1.0)

    def exact(z, logsnr):
        alpha, sigma = alpha_sigma(logsnr)
        gain = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
        return Estimate(broadcast_to_image(gain, z) * z)

    x, eps = s * torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    levels = [karras_levels(400, sigma_max=sigma, sigma_min=1e-3) for sigma in sigmas]
    found = denoised(exact, x, eps, torch.stack(levels))
    ratio = torch.tensor(sigmas)[:, None, None, None]  # z = alpha * (x + ratio * eps)
    expected = (x + ratio * eps) * s / (s**2 + ratio**2).sqrt()
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_levels_are_log_uniform_and_the_fraction_is_exact():
    config = LowresEstimatesConfig(model="x", fraction=0.3)
    generator = torch.Generator().manual_seed(0)
    sigmas = torch.stack([estimate_sigmas(config, 10, generator) for _ in range(2000)])
    assert ((sigmas > 0).sum(1) == 3).all()
    assert ((sigmas > 0).double().mean(0) - 0.3).abs().max() < 0.04  # any row
    own = sigmas[sigmas > 0].log10()
    assert -1 <= own.min() < -0.99 and -0.01 < own.max() <= 0
    assert abs(own.mean() + 0.5) < 0.02 and abs(own.std() - 12**-0.5) < 0.01
    single = [float(estimate_sigmas(config, 1, generator)) > 0 for _ in range(2000)]
    assert abs(sum(single) / 2000 - 0.3) < 0.04
    for fraction in (0.0, 1.0):
        every = estimate_sigmas(dataclasses.replace(config, fraction=fraction), 7, generator)
        assert ((every > 0) == bool(fraction)).all()


def begun(config, estimates):
    task = DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32), TEXT)
    task.estimates = estimates
    return TrainState(task)


def test_rows_that_are_not_chosen_are_as_without_estimates(images, told):
    config, batch = sr(), taken(images, sr())
    estimates = LowresEstimates(some(), steps=2)
    for present in (None, estimates):
        own = config if present else dataclasses.replace(config, lowres_estimates=None)
        train_step(begun(own, present), batch)
    (x, cond, logsnr, eps), (x2, cond2, logsnr2, eps2) = told
    assert torch.equal(x, x2) and torch.equal(logsnr, logsnr2) and torch.equal(eps, eps2)
    assert torch.equal(cond.aug_level, cond2.aug_level)
    assert torch.equal(cond.text.tokens, cond2.text.tokens)
    chosen = drawn(config, estimates, batch).estimate_sigma > 0
    assert chosen.sum() == 4
    assert (cond.lowres == cond2.lowres).flatten(1).all(1).equal(~chosen)
    assert all(p.grad is None for p in estimates.stage.parameters())
    assert torch.equal(batch.lowres, taken(images, config).lowres)  # it was not written to


def test_a_part_without_a_chosen_row_keeps_its_true_images(images):
    """As a last batch of one image may be, or one process's few rows."""
    estimates, config = LowresEstimates(some(), steps=2), sr()
    none = dataclasses.replace(config.lowres_estimates, fraction=0.0)
    batch = taken(images, config)
    changed = dataclasses.replace(config, lowres_estimates=none)
    found = estimates(batch, TEXT(batch.captions), drawn(changed, estimates, batch))
    assert torch.equal(found, batch.lowres)


def test_the_stage_before_is_told_captions_that_are_dropped(images, monkeypatch):
    config = every_row(sr(text_dropout=1.0))
    batch, seen = taken(images, config), []
    denoiser = Stage.denoiser

    def watched(stage, cond):
        seen.append(cond.text)
        return denoiser(stage, cond)

    monkeypatch.setattr(Stage, "denoiser", watched)
    estimates = LowresEstimates(some(), steps=1)
    train_step(begun(config, estimates), batch)
    assert torch.equal(seen[0].tokens, TEXT(batch.captions).tokens) and len(seen) == 1


def test_parts_of_a_step_and_the_whole_have_the_same_losses(images):
    found = []
    for parts in (1, 2):
        optimizer = dataclasses.replace(TINY[1].optimizer, accumulation=parts)
        config = sr(optimizer=optimizer)
        state = begun(config, LowresEstimates(some(), steps=2))
        found.append(train_step(state, taken(images, config)))
    torch.testing.assert_close(found[0].losses, found[1].losses, rtol=1e-5, atol=1e-7)
    assert found[1].grad_norm == pytest.approx(found[0].grad_norm, rel=1e-4)


def test_processes_estimate_the_rows_of_the_whole_batch(images):
    config = sr()
    whole = shortened(taken(images, config), 7)
    estimates = LowresEstimates(some(), steps=2)
    draws = drawn(config, estimates, whole)
    expected = estimates(whole, TEXT(whole.captions), draws)
    for rank in range(2):
        part = shortened(taken(images, config, rank=rank, world_size=2), 7)
        assert torch.equal(part.whole_lowres[:3], whole.whole_lowres[rank::2][:3])
        assert torch.equal(part.places[:3], whole.places[rank::2][:3])
        assert estimates.shape(part) == estimates.shape(whole) == (7, 3, 8, 8)
        rows = torch.tensor(part.share.rows).clamp_max(6)
        found = estimates(part, TEXT(part.captions), draws[rows])[: len(expected[rank::2])]
        torch.testing.assert_close(found, expected[rank::2], atol=1e-5, rtol=0)
        true = draws.estimate_sigma[rank::2] == 0
        assert torch.equal(found[true], whole.lowres[rank::2][true])


@pytest.fixture
def group():
    """One process that talks to itself."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Group()
    dist.destroy_process_group()


def test_copies_and_shards_have_the_losses_of_one_process(images, group):
    config, found = sr(), []
    batch = taken(images, config)

    def wrap(state, kind):
        if kind == "copies":
            state.parallel = DDP(state.task, group)
        elif kind == "shards":
            state.parallel = FSDP(state.task, state.ema.averaged(), group)
            state.optimizer = torch.optim.SGD(state.model.parameters())

    for kind in ("one", "copies", "shards"):
        state = begun(config, LowresEstimates(some(), steps=2))
        wrap(state, kind)
        found.append(train_step(state, batch).losses)
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found[2], found[0], rtol=1e-5, atol=1e-7)


def test_examples_to_preserve_keep_their_whole_images(images):
    new, kept = taken(images, sr()), taken(images, sr(batch_size=4))
    batch = joined(new, kept, weight=1.0, position=0)
    for one in (batch, shortened(batch, 5)):
        for lowres, whole, (top, left) in zip(
            one.lowres, one.whole_lowres, one.places.tolist(), strict=True
        ):
            assert torch.equal(lowres, whole[:, top : top + 4, left : left + 4])
    plain = joined(taken(images, sr(), whole=False), kept, weight=1.0, position=0)
    assert plain.whole_lowres is None and plain.places is None


@pytest.fixture
def before(tmp_path):
    """A cascade with the base of `tiny`; its weights can be made anew."""

    def write(seed=0):
        torch.manual_seed(seed)
        stage = Stage(TINY[0].stage)
        for parameter in stage.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        folder = tmp_path / "before"
        save_cascade(folder, stages=[stage], text_encoder="bytes:16", name="before")
        return folder

    return write


def recipe(folder, **changes):
    estimates = LowresEstimatesConfig(model=str(folder), steps=2)
    settings = {"total_images": 40, "checkpoint_images": 16, "lowres_estimates": estimates}
    return Recipe(name="sr", stages=(sr(**(settings | changes)),))


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_that_is_stopped_or_killed_resumes_to_the_bit(train, before, tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    def at_24(self, now, meter):
        if now == 24 and self.killed:
            raise KilledError
        if now == 24:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = tmp_path / "whole"
    chosen = recipe(before())
    assert train(chosen, whole) == 0
    assert losses(whole) != losses_without(train, tmp_path, chosen)
    expected = {
        path.relative_to(whole): path.read_bytes()
        for path in (whole / "checkpoints/40").rglob("*.safetensors")
    }
    names = [str(path.relative_to("checkpoints/40")) for path in expected]
    assert "cascade/16/weights.safetensors" in names and not any("/8/" in name for name in names)
    for killed in (False, True):
        out = tmp_path / f"killed-{killed}"
        monkeypatch.setattr(progress.TrainingDisplay, "killed", killed, raising=False)
        with monkeypatch.context() as patch:
            patch.setattr(progress.TrainingDisplay, "show", at_24)
            if killed:
                with pytest.raises(KilledError):
                    train(chosen, out)
            else:
                assert train(chosen, out) == 0
        assert train(chosen, out, resume=True) == 0
        assert losses(out) == losses(whole)
        for path, content in expected.items():
            assert (out / path).read_bytes() == content, path


def losses_without(train, tmp_path, chosen):
    config = dataclasses.replace(chosen.stages[0], lowres_estimates=None)
    assert train(Recipe(name="plain", stages=(config,)), tmp_path / "plain") == 0
    return losses(tmp_path / "plain")


def test_other_weights_of_the_stage_before_are_other_data(train, before, tmp_path):
    chosen = recipe(before(0), total_images=16, checkpoint_images=8)
    out = tmp_path / "run"
    assert train(chosen, out) == 0
    before(1)
    longer = dataclasses.replace(chosen.stages[0], total_images=32)
    longer = dataclasses.replace(chosen, stages=(longer,))
    with pytest.raises(CalotypeError, match=r"lowres_estimates\.model, have changed"):
        train(longer, out, resume=True, images=32)
    before(0)
    assert train(longer, out, resume=True, images=32) == 0


def test_what_does_not_fit_is_refused_before_anything_is_made(train, before, tmp_path):
    out, folder = tmp_path / "run", before()
    with pytest.raises(ConfigError, match="got lowres_estimates for a base stage"):
        dataclasses.replace(TINY[0], lowres_estimates=LowresEstimatesConfig(model="default"))
    for changes, message in (
        ({"fraction": 1.1}, "got fraction=1.1"),
        ({"sigma_min": 0.0}, "got sigma_min=0.0"),
        ({"sigma_min": 0.5, "sigma_max": 0.4}, "got sigma_max=0.4; expected a number from 0.5"),
        ({"steps": 0}, "got steps=0"),
    ):
        with pytest.raises(ConfigError, match=message):
            LowresEstimatesConfig(model="default", **changes)
    wrong = {"lowres_estimates": LowresEstimatesConfig(model=str(tmp_path / "nothing"))}
    for own, message in (
        (wrong, r"lowres_estimates\.model: got model .*expected 'default'"),
        ({"text_encoder": "bytes:32"}, "reads captions by 'bytes:16'"),
    ):
        with pytest.raises(UsageError, match=message):
            train(recipe(folder, **own), out)
    lacking = Recipe(name="x", stages=(dataclasses.replace(recipe(folder).stages[0], **_next()),))
    with pytest.raises(UsageError, match="with stages of 8 pixels; expected one of 16"):
        train(lacking, out)
    assert not out.exists()


def _next():
    return {"stage": TINY[2].stage, "data": DataConfig(crop=16)}


def test_crops_must_fit_a_super_resolution_stage_before(tmp_path):
    save_cascade(
        Path(tmp_path / "two"), stages=[some(0), some(1)], text_encoder="bytes:16", name="two"
    )
    network = dataclasses.replace(
        TINY[2].stage.network, fold=1, levels=(LevelConfig(channels=16, blocks=1),)
    )
    stage = dataclasses.replace(TINY[2].stage, network=network)
    model = LowresEstimatesConfig(model=str(tmp_path / "two"))
    for crop, fits in ((16, True), (12, False), (None, True)):
        config = sr(2, crop=crop, stage=stage, lowres_estimates=model)
        if fits:
            check_estimates(config)
            continue
        with pytest.raises(ConfigError, match=r"got data\.crop=12, which is 6 pixels for the 16"):
            check_estimates(config)
