import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from calotype.cascade import Cascade
from calotype.cascade.lora import LoraStack, load_lora
from calotype.config.diffusion import PreservationConfig
from calotype.config.lora import LoraConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.errors import UsageError
from calotype.training import progress
from calotype.training.recipes import load_recipe

QUIET = {"grid_images": 0, "validation_images": 0}
FAST = OptimizerConfig(learning_rate=2e-3, warmup_images=0)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    return tmp_path_factory.mktemp("base") / "run"


@pytest.fixture
def base(started, train, micro_recipe):
    """A run to start from."""
    if not started.exists():
        assert train(micro_recipe(total_images=8, checkpoint_images=8, **QUIET), started) == 0
    return started


@pytest.fixture
def lora_recipe(micro_recipe):
    def make(**changes):
        settings = {"lora": LoraConfig(rank=2), "optimizer": FAST, "total_images": 16, **QUIET}
        return micro_recipe(**{**settings, "checkpoint_images": 8, **changes})

    return make


def test_only_adapters_move_and_the_file_makes_the_cascade(base, train, lora_recipe, tmp_path):
    out = tmp_path / "run"
    everywhere = LoraConfig(rank=2, targets=("attention", "convolution", "linear"))
    recipe = lora_recipe(lora=everywhere, grid_images=16, validation_images=16)
    assert train(recipe, out, init=base) == 0
    before = load_file(base / "checkpoints/latest/cascade/8/weights.safetensors")
    for name, value in load_file(out / "checkpoints/16/weights.safetensors").items():
        if ".adapters." in name:
            assert name.endswith(".down") or value.any(), name
        else:
            assert torch.equal(value, before[name]), name
    assert sorted(os.listdir(out / "lora")) == ["16-8.safetensors", "8-8.safetensors"]
    assert "validation" in json.loads((out / "validation.jsonl").read_text().splitlines()[-1])
    # The run's cascade has the adapters merged; base and LoRA file draw the same.
    lora, drawn = load_lora(out / "lora/16-8.safetensors"), Cascade.load(out)
    own = Cascade.load(base)
    plain = own.sample(["red left"], seeds=[3]).images[0]
    for merged in (True, False):
        stack = LoraStack(own.stages, merged=merged)
        stack.add(lora)
        assert stack.fits(lora)
        image = own.sample(["red left"], seeds=[3]).images[0]
        expected = drawn.sample(["red left"], seeds=[3]).images[0]
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)
        assert (image - plain).abs().max() > 1e-4
        stack.clear()
    assert torch.equal(own.sample(["red left"], seeds=[3]).images[0], plain)


def test_a_stopped_run_resumes_to_the_bit(base, train, lora_recipe, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(lora_recipe(), whole, init=base) == 0
    show = progress.TrainingDisplay.show

    def show_and_signal(self, now, meter):
        show(self, now, meter)
        if now == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress.TrainingDisplay, "show", show_and_signal)
    assert train(lora_recipe(), out, init=base) == 0
    monkeypatch.undo()
    (out / "lora/16-8.safetensors").write_bytes(b"of a step that was lost")
    assert train(lora_recipe(), out, resume=True) == 0  # --init is not needed again
    for name in ("weights", "ema", "optimizer"):
        file = f"checkpoints/16/{name}.safetensors"
        assert (out / file).read_bytes() == (whole / file).read_bytes()
    for name in ("16-8.safetensors", "8-8.safetensors"):
        assert (out / "lora" / name).read_bytes() == (whole / "lora" / name).read_bytes()


@pytest.mark.slow
def test_every_stage_of_a_cascade(train, tmp_path):
    """Also those that enlarge: with real low-resolution images and random aug_level."""
    tiny = load_recipe("tiny")
    short = [
        dataclasses.replace(stage, total_images=8, checkpoint_images=8, **QUIET)
        for stage in tiny.stages
    ]
    assert train(Recipe(name="tiny", stages=tuple(short)), tmp_path / "base") == 0
    tuned = [dataclasses.replace(s, lora=LoraConfig(rank=2), optimizer=FAST) for s in short]
    recipe = Recipe(name="tuned", stages=tuple(tuned))
    assert train(recipe, tmp_path / "run", init=tmp_path / "base") == 0
    names = ["16-16.safetensors", "24-32.safetensors", "8-8.safetensors"]
    assert sorted(os.listdir(tmp_path / "run/lora")) == names
    own = Cascade.load(tmp_path / "base")
    stack = LoraStack(own.stages)
    for name in names:
        stack.add(load_lora(tmp_path / "run/lora" / name))
    images = own.sample(["a red square"], seeds=[1]).images
    expected = Cascade.load(tmp_path / "run").sample(["a red square"], seeds=[1]).images
    for one, other in zip(images, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_without_weights_to_start_from_nothing_is_made(train, lora_recipe, tmp_path):
    with pytest.raises(UsageError, match="--init default"):
        train(lora_recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_new_image_is_learnt_and_old_ones_are_kept(train, micro, images, tmp_path):
    base = micro()
    levels = tuple(dataclasses.replace(level, channels=32) for level in base.stage.network.levels)
    network = dataclasses.replace(base.stage.network, dropout=0.0, levels=levels)
    schooled = dataclasses.replace(
        base,
        stage=dataclasses.replace(base.stage, network=network),
        data=dataclasses.replace(base.data, flip=False),
        batch_size=16,
        total_images=2400,
        checkpoint_images=2400,
        ema_halflife_images=200,
        text_dropout=0.0,
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup_images=160, decay_from=0.5),
        **QUIET,
    )
    assert train(Recipe(name="base", stages=(schooled,)), tmp_path / "base") == 0
    data = tmp_path / "new"
    data.mkdir()
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[:8] = (255, 0, 255)
    Image.fromarray(pixels).save(data / "new.png")
    (data / "new.txt").write_text("purple zorb")

    def image(run, caption):
        return Cascade.load(run).sample([caption], seeds=[5]).images[0]

    def error(run, caption, target):
        return float((image(run, caption) - target).square().mean())

    new, red = torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    new[:, 1, :4] = -1
    red[:, 1:, :, :4] = -1

    def both(run):
        return error(run, "purple zorb", new), error(run, "red left", red)

    errors = {"base": both(tmp_path / "base")}
    for name, kept in (("alone", None), ("kept", PreservationConfig(data=str(images)))):
        tuned = dataclasses.replace(
            schooled,
            total_images=1600,
            checkpoint_images=1600,
            lora=LoraConfig(rank=4, targets=("attention", "convolution", "linear")),
            preservation=kept,
            optimizer=OptimizerConfig(learning_rate=4e-3, warmup_images=80, decay_from=0.5),
        )
        out = tmp_path / name
        recipe = Recipe(name=name, stages=(tuned,))
        assert train(recipe, out, data=data, init=tmp_path / "base") == 0
        errors[name] = both(out)
    assert errors["base"][0] > 0.3 and errors["base"][1] < 0.05
    assert errors["alone"][0] < 0.05 and errors["kept"][0] < 0.05
    assert errors["kept"][1] < 0.1 < errors["alone"][1]
