"""Training to in-paint: begun from plain weights, judged in holes, resumed to the bit."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Cascade, inpaint
from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.diffusion import DraftTrainingConfig
from calotype.config.masks import MasksConfig
from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.recipe import Recipe
from calotype.config.stage import StageConfig
from calotype.data.batch import Batch, BatchPlan
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.tasks.diffusion import DiffusionInputs, DiffusionTask, new_stage
from calotype.tasks.initial import with_new_inputs
from calotype.training import progress
from calotype.training.recipes import load_recipe

LEVELS = (LevelConfig(channels=8, blocks=1),)


@pytest.fixture
def in_painting(micro_recipe):
    """A recipe like the plain one, but for its masks."""

    def make(**changes):
        plain = micro_recipe(**changes).stages[0]
        network = dataclasses.replace(plain.stage.network, extra_channels=4)
        stage = dataclasses.replace(plain.stage, network=network)
        config = dataclasses.replace(plain, stage=stage, masks=MasksConfig())
        return Recipe(name="in-painting", stages=(config,))

    return make


@pytest.mark.slow
def test_a_run_learns_of_masks_is_stopped_and_resumed(
    micro_recipe, in_painting, train, tmp_path, monkeypatch
):
    settings = {"total_images": 24, "checkpoint_images": 8, "grid_images": 24}
    plain = tmp_path / "plain"
    assert train(micro_recipe(total_images=8, checkpoint_images=8), plain) == 0
    recipe = in_painting(**settings, validation_images=24)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(recipe, whole, init=plain) == 0
    lines = [json.loads(line) for line in (whole / "validation.jsonl").read_text().splitlines()]
    assert set(lines[-1]["holes"]) == set(lines[-1]["trained"])
    with Image.open(next((whole / "grids").iterdir())) as sheet:
        assert sheet.width > 3 * recipe.stages[0].stage.resolution

    def show(self, now, meter):
        if now == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainingDisplay, "show", show)
        train(recipe, stopped, init=plain)
    assert train(recipe, stopped, resume=True) == 0
    weights = [Cascade.load(out).stages[0].state_dict() for out in (whole, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    moved = [name for name in weights[0] if ".extra_in." in name]
    assert moved and all(bool(weights[0][name].any()) for name in moved)
    cascade = Cascade.load(whole)
    side = cascade.stages[0].config.resolution
    image, mask = torch.zeros(1, 3, side, side), torch.ones(1, 1, side, side, dtype=torch.bool)
    mask[..., : side // 2] = False
    made = inpaint(cascade, image, mask, ["red left"], seeds=[0]).images[0]
    assert not bool(made[mask.expand(1, 3, side, side)].any())


@pytest.mark.parametrize("kind", ["unet", "efficient"])
def test_the_first_output_is_that_of_the_plain_weights_to_the_bit(kind):
    def stage(extra):
        torch.manual_seed(0)
        if kind == "unet":
            network = UNetConfig(levels=LEVELS, text_dim=0, fold=2, extra_channels=extra)
            made = Stage(StageConfig(resolution=16, network=network))
        else:
            network = EfficientUNetConfig(levels=LEVELS, text_dim=0, extra_channels=extra)
            made = Stage(StageConfig(resolution=16, network=network, lowres_resolution=8))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return made

    plain, masked = stage(0), stage(4)
    masked.load_state_dict(with_new_inputs(plain.state_dict(), masked))
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([0.0, 2.0])
    lowres = None if kind == "unet" else torch.rand(2, 3, 16, 16)
    cond = Conditioning(None, lowres, None if lowres is None else torch.zeros(2))
    known = dataclasses.replace(cond, extra=torch.rand(2, 4, 16, 16))
    expected = plain.denoiser(cond)(x, level).x_hat
    for given in (cond, known):
        assert torch.equal(masked.denoiser(given)(x, level).x_hat, expected)
    with torch.no_grad():
        masked.network.extra_in.convolution.weight.normal_()
    assert torch.equal(masked.denoiser(cond)(x, level).x_hat, expected)  # nothing is known
    assert not torch.equal(masked.denoiser(known)(x, level).x_hat, expected)
    wrong = dataclasses.replace(cond, extra=torch.rand(2, 5, 16, 16))
    with pytest.raises(ValueError, match="4, H, W"):
        masked.denoiser(wrong)


def test_opacity_is_cut_and_mirrored_with_the_image(tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[2:6, 1:5] = 255  # white on nothing
    for number in range(3):
        Image.fromarray(rgba).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("square, on a black background")
    config = dataclasses.replace(load_recipe("tiny").stages[0].data, flip=True, crop=8)
    source = open_source(tmp_path, resolution=16, data=config)
    plan = BatchPlan(
        resolution=16, lowres_resolution=None, config=config, batch_size=16, seed=0, alpha=True
    )
    made = batches(source, plan, prefetch=0)
    batch = next(made)
    made.close()
    assert batch.alpha.shape == (16, 1, 8, 8)
    assert set(batch.alpha.unique().tolist()) <= {0.0, 1.0}
    assert len({tuple(alpha.flatten().tolist()) for alpha in batch.alpha}) > 3


@pytest.mark.parametrize("resolution", [64, 256, 1024])
def test_recipes_fine_tune_the_stages_of_the_default(resolution):
    plain = load_recipe(f"emoji-{resolution}").stages[0]
    recipe = load_recipe(f"inpaint-emoji-{resolution}").stages[0]
    network = dataclasses.replace(recipe.stage.network, extra_channels=0)
    assert dataclasses.replace(recipe.stage, network=network) == plain.stage
    assert recipe.masks is not None and recipe.masks.whole >= 0.2


def test_drafts_of_training_rows_know_what_is_known(in_painting):
    recipe = in_painting(with_draft=True, draft=DraftTrainingConfig(folds=2, fold_fraction=0.5))
    config = recipe.stages[0]
    side = config.stage.resolution
    task = DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32))
    shape = torch.Size((8, 3, side, side))
    numbers = task.random_numbers(
        Batch(torch.zeros(shape), None, ("x",) * 8, ("k",) * 8, 0), position=0
    )
    known = torch.rand(8, 4, side, side)
    text = TextEmbedding(torch.zeros(8, 1, 8), torch.ones(8, 1, dtype=torch.bool))
    inputs = DiffusionInputs(torch.zeros(shape), text, None, known, ("x",) * 8, numbers)
    asked = []

    class Drafts:
        def __len__(self):
            return 2

        def __call__(self, text, folds, known):
            asked.append((folds, known))
            return torch.zeros(8, 3, side, side)

    task.drafts = Drafts()
    task.losses(inputs)
    ((folds, given),) = asked
    assert torch.equal(folds >= 0, numbers.folded & numbers.keep) and torch.equal(given, known)


@pytest.mark.parametrize("has", [False, True])
def test_weights_may_have_a_spread_that_the_recipe_lacks_or_lack_its(in_painting, has):
    config = in_painting(with_draft=True, draft=DraftTrainingConfig(folds=2)).stages[0]
    network = config.stage.network
    stages = []
    for spread in (has, not has):
        draft = dataclasses.replace(network.draft, spread=spread)
        changed = dataclasses.replace(network, draft=draft)
        stages.append(Stage(dataclasses.replace(config.stage, network=changed)))
    given, wanted = stages
    filled = with_new_inputs(given.state_dict(), wanted)
    wanted.load_state_dict(filled)
    assert has or not bool(wanted.network.draft.spread.any())
