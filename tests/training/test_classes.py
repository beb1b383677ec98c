"""Stages that are told of classes: names recorded, numbers as told, resumed to the bit, learnt."""

import dataclasses
import shutil
import signal

import pytest
import torch
from PIL import Image

from calotype.cascade.io import load_stage, read_cascade_file
from calotype.conditioning import Conditioning
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config
from calotype.data.batch import Batch
from calotype.diffusion import CosineSchedule, PerSampleNoise
from calotype.errors import ConfigError, UsageError
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.random_numbers import step_numbers
from calotype.training import progress

QUIET = {"grid_images": 0, "validation_images": 0}
NAMES = ("black", "blue", "green", "red")


@pytest.fixture
def by_colour(images, tmp_path):
    """The eight images without captions, in a folder a colour."""
    root = tmp_path / "data"
    for path in images.glob("*.png"):
        colour, _, name = path.name.partition("-")
        (root / colour).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / colour / name)
    return root


@pytest.fixture
def classed(micro):
    """A configuration without text, with four classes."""

    def make(classes=4, guidance=1.0, names=(), **changes):
        base = micro()
        levels = (AdmLevel(channels=8, blocks=1), AdmLevel(channels=8, blocks=1))
        network = AdmConfig(levels=levels, norm_groups=4, middle="none", classes=classes)
        sampling = dataclasses.replace(base.stage.sampling, guidance_weight=guidance)
        stage = dataclasses.replace(
            base.stage, network=network, sampling=sampling, classes=tuple(names)
        )
        labels = "folder" if classes > 0 else None
        data = dataclasses.replace(base.data, labels=labels)
        return dataclasses.replace(base, stage=stage, data=data, grid_captions=(), **changes)

    return make


def recipe(config):
    return Recipe(name="classed", stages=(config,))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_names_are_those_of_the_data_and_are_recorded(
    by_colour, classed, train, tmp_path, dropout, capsys
):
    out = tmp_path / "run"
    config = classed(total_images=16, class_dropout=dropout, text_encoder="minilm")
    assert train(recipe(config), out, data=by_colour) == 0
    recorded = load_config(out / "recipe.json", Recipe).stages[0].stage
    cascade = out / "checkpoints" / "latest" / "cascade"
    assert read_cascade_file(cascade).text_encoder == "none"  # no caption is ever read
    assert not (out / "embeddings").exists() and (out / "grids").is_dir()
    for stage in (recorded, load_stage(cascade / "8").config):
        assert stage.classes == NAMES and stage.null_class == (dropout > 0)
    assert "trained" in (out / "validation.jsonl").read_text()
    assert "most captions missing" not in capsys.readouterr().err


def test_without_text_and_classes_a_folder_of_images_is_enough(by_colour, classed, train, tmp_path):
    out = tmp_path / "run"
    assert train(recipe(classed(classes=0, total_images=16)), out, data=by_colour) == 0
    assert (out / "grids").is_dir() and "trained" in (out / "validation.jsonl").read_text()


def test_names_in_a_recipe_settle_their_numbers(by_colour, classed, train, tmp_path):
    turned = tuple(reversed(NAMES))
    out = tmp_path / "run"
    assert train(recipe(classed(names=turned, total_images=8, **QUIET)), out, data=by_colour) == 0
    assert load_config(out / "recipe.json", Recipe).stages[0].stage.classes == turned
    other = recipe(classed(names=("black", "blue", "green", "pink"), total_images=8, **QUIET))
    with pytest.raises(UsageError, match="got the label 'red'; expected one of the 4 classes"):
        train(other, tmp_path / "other", data=by_colour)
    with pytest.raises(UsageError, match=r"--init .* classes 'red', .* 'black', .*same order"):
        train(
            recipe(classed(total_images=8, **QUIET)), tmp_path / "other", data=by_colour, init=out
        )


def test_what_does_not_fit_is_refused_before_anything_is_made(by_colour, classed, train, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UsageError, match=r"got 4 classes, black, .*classes=3; expected as many"):
        train(recipe(classed(classes=3)), out, data=by_colour)
    Image.new("RGB", (8, 8)).save(by_colour / "loose.png")
    with pytest.raises(UsageError, match=r"no label of 1 of 9 images: loose.png"):
        train(recipe(classed()), out, data=by_colour)
    assert not out.exists()
    with pytest.raises(ConfigError, match=r"got data.labels=null for a network with classes=4"):
        config = classed()
        dataclasses.replace(config, data=dataclasses.replace(config.data, labels=None))
    with pytest.raises(ConfigError, match=r"got data.labels='folder' for a network without"):
        config = classed(classes=0)
        dataclasses.replace(config, data=dataclasses.replace(config.data, labels="folder"))
    with pytest.raises(ConfigError, match="guidance_weight=3 with class_dropout=0"):
        classed(guidance=3.0, class_dropout=0.0)
    with pytest.raises(ConfigError, match="got 2 names of classes for a network with classes=4"):
        classed(names=("a", "b", "a", "b"))


def test_stopped_and_resumed_it_is_the_same_to_the_bit(
    by_colour, classed, train, tmp_path, monkeypatch
):
    config = recipe(classed(total_images=24, class_dropout=0.3, **QUIET))
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(config, whole, data=by_colour) == 0

    def stop_at(images):
        monkeypatch.setattr(
            progress.TrainingDisplay,
            "show",
            lambda self, now, meter: signal.raise_signal(signal.SIGTERM) if now == images else None,
        )

    stop_at(12)
    assert train(config, out, data=by_colour) == 0
    stop_at(-1)
    changed = tmp_path / "changed"
    shutil.copytree(by_colour, changed)
    Image.new("RGB", (8, 8)).save(changed / "loose.png")
    with pytest.raises(UsageError, match=r"no label of 1 of 9 images: loose.png"):
        train(config, out, data=changed, resume=True)
    (changed / "pink").mkdir()
    (changed / "loose.png").rename(changed / "pink/new.png")
    with pytest.raises(UsageError, match="got the label 'pink'; expected one of the 4 classes"):
        train(config, out, data=changed, resume=True)
    assert train(config, out, data=by_colour, resume=True) == 0
    pairs = [
        (path, out / path.relative_to(whole))
        for path in (whole / "checkpoints" / "24").rglob("*.safetensors")
    ]
    assert pairs and all(one.read_bytes() == other.read_bytes() for one, other in pairs)


def test_a_run_that_never_took_a_step_can_be_begun_again(by_colour, classed, train, tmp_path):
    config, out = recipe(classed(total_images=8, **QUIET)), tmp_path / "run"
    assert train(config, out, data=by_colour) == 0
    for path in out.iterdir():
        if path.name != "recipe.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert train(config, out, data=by_colour) == 0


def test_rows_are_told_their_classes_and_some_of_none(classed):
    config = classed(names=NAMES, class_dropout=0.5, batch_size=64)
    stage = new_stage(config, device="cpu", dtype=torch.float32)
    task, seen = DiffusionTask(config, stage), []
    labels = [NAMES[row % 4] for row in range(64)]
    batch = Batch(torch.zeros(64, 3, 8, 8), None, ("",) * 64, ("",) * 64, 0, labels=tuple(labels))
    numbers = task.random_numbers(batch, 0)
    stage.loss = lambda x, cond, *_, **__: seen.append(cond)  # type: ignore[method-assign]
    task.losses(task.inputs(batch, numbers))
    (cond,) = seen
    assert isinstance(cond, Conditioning) and cond.classes is not None and cond.text is None
    told = torch.arange(64) % 4
    assert torch.equal(cond.classes, torch.where(numbers.keep_class, told, -1))
    assert 16 < int(numbers.keep_class.sum()) < 48
    part = task.inputs(batch, numbers)[5:7]
    assert part.classes.tolist() == [1, 2]


def test_classes_leave_the_other_numbers_of_a_step_alone(classed):
    shape = torch.Size((8, 3, 4, 4))
    with_classes = step_numbers(classed(), CosineSchedule(), 40, shape=shape)
    without = step_numbers(classed(classes=0), CosineSchedule(), 40, shape=shape)
    assert without.keep_class is None and with_classes.keep_class is not None
    assert torch.equal(with_classes.eps, without.eps)
    assert torch.equal(with_classes.logsnr, without.logsnr)
    again = step_numbers(classed(), CosineSchedule(), 40, shape=shape)
    assert torch.equal(again.keep_class, with_classes.keep_class)
    never = step_numbers(classed(class_dropout=0.0), CosineSchedule(), 40, shape=shape)
    assert never.keep_class.all()


@pytest.mark.slow
def test_each_class_is_learnt(tmp_path, classed, train):
    """Two classes, each of one colour: the null class is either, a class is its own."""
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "data" / name / "0.png")
    config = classed(
        classes=2,
        batch_size=16,
        total_images=6400,
        class_dropout=0.2,
        ema_halflife_images=400,
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup_images=160, decay_from=0.5),
        checkpoint_images=6400,
        grid_images=0,
        validation_images=0,
    )
    assert train(recipe(config), tmp_path / "run", data=tmp_path / "data") == 0
    stage = load_stage(tmp_path / "run" / "checkpoints" / "latest" / "cascade" / "8")
    sampling = dataclasses.replace(stage.config.sampling, steps=16)
    assert stage.config.classes == ("blue", "red")
    cond = Conditioning(classes=torch.tensor([0, 1] * 8))
    images = stage.sample(cond, None, PerSampleNoise(range(16)), size=(8, 8), sampling=sampling)
    redder = (images[:, 0] - images[:, 2]).mean((1, 2))
    expected = torch.tensor([-180.0, 180.0] * 8) / 127.5
    assert (redder - expected).abs().max() < 0.25, redder
