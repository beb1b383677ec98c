"""Classifiers in training: they approach the posterior, stop and resume to the bit."""

import dataclasses
import json
import math
import os
import shutil
import signal

import pytest
import torch
from killed import TwoProcesses, assert_same_bits
from micro_recipes import micro_classifier as micro
from micro_recipes import write_classes
from safetensors.torch import load_file

from calotype.cli import run as command
from calotype.config.adm import AdmLevel
from calotype.config.augmentation import ImageAugmentation
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config, override, to_dict
from calotype.data.batch import Batch
from calotype.diffusion import add_noise, alpha_sigma
from calotype.diffusion.named import build_schedule
from calotype.errors import ConfigError, UsageError
from calotype.tasks.accuracy import Labelled, accuracy_by_level
from calotype.tasks.augmentation import augmented
from calotype.tasks.classifier import ClassifierTask, classifier_numbers, new_classifier
from calotype.tasks.factory import Tasks
from calotype.training import trainer
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe
from calotype.vision.classifier import ClassifierFile, ClassifierModel, load_classifier

NO_AUGMENTATION = ImageAugmentation(
    smallest_crop=1.0, stretch=1.0, flip=False, blur=0.0, colour=0.0, noise=0.0
)
ONLY_CROPS = dataclasses.replace(NO_AUGMENTATION, smallest_crop=0.64)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("classes"))


def train(recipe, out, data, *, quiet=True, **options):
    options = RunOptions(quiet=quiet, threads=1, dtype="float32", device="cpu", **options)
    return run_recipe(recipe, data=data, out=out, options=options, tasks=Tasks())


def lines(run, name="log"):
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_learns_stops_and_resumes_to_the_bit(images, tmp_path, monkeypatch):
    assert train(micro(), tmp_path / "whole", images) == 0
    log = lines(tmp_path / "whole")
    losses = [line["loss"] for line in log]
    assert losses[0] == pytest.approx(math.log(3), abs=0.5)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert {"loss_by_level", "flops_per_second"} <= set(log[0])
    found = lines(tmp_path / "whole", "validation")[-1]
    assert found["trained"]["0.05"] == 1.0
    assert found["trained"]["0.05"] > found["trained"]["20"]
    real, steps = trainer.train_step, []

    def step(state, batch):
        steps.append(state.images_seen)
        if len(steps) == 17:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(state, batch)

    monkeypatch.setattr(trainer, "train_step", step)
    assert train(micro(), tmp_path / "stopped", images) == 0
    monkeypatch.undo()
    assert train(micro(), tmp_path / "stopped", images, resume=True) == 0
    for name in ("weights", "ema", "optimizer"):
        whole, stopped = (
            load_file(tmp_path / run / f"checkpoints/320/{name}.safetensors")
            for run in ("whole", "stopped")
        )
        assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    model = load_classifier(tmp_path / "whole")
    assert model.classes == ("blue", "green", "red") and model.name == "micro-classifier"
    recorded = load_config(tmp_path / "stopped/recipe.json", Recipe).stages[0]
    assert recorded.classifier.classes == model.classes
    red = torch.ones(1, 3, 16, 16)
    red[:, 1:, :8] = -1
    assert model(red, torch.tensor([6.0])).argmax(1).tolist() == model.numbers(["red"]).tolist()
    recipe = micro(total_images=8)
    assert train(recipe, tmp_path / "more", images, init=tmp_path / "whole") == 0
    assert lines(tmp_path / "more")[0]["loss"] < losses[0]


def test_parts_have_the_log_of_the_whole(images, tmp_path):
    assert train(micro(total_images=40), tmp_path / "whole", images) == 0
    parts = OptimizerConfig(learning_rate=5e-3, warmup_images=32, accumulation=4)
    assert train(micro(total_images=40, optimizer=parts), tmp_path / "parts", images) == 0
    whole, in_parts = (
        [line["loss"] for line in lines(tmp_path / run)] for run in ("whole", "parts")
    )
    assert in_parts == pytest.approx(whole, rel=1e-3)


def two_gaussians(std=0.5):
    """Images of 2 pixels around them with the names of theirs."""
    means = torch.zeros(2, 3, 2, 2)
    means[0, 0, 0], means[1, 1, 1] = 0.5, -0.6

    def sample(count, generator):
        labels = torch.randint(2, (count,), generator=generator)
        noise = torch.randn(count, 3, 2, 2, generator=generator)
        return means[labels] + std * noise, labels

    def log_odds(z, logsnr):
        """Of class 1 against class 0: both are normal, with variance (alpha std)^2 + sigma^2."""
        alpha, sigma = alpha_sigma(logsnr)
        variance = (alpha * std) ** 2 + sigma**2
        distances = (z[:, None] - alpha.view(-1, 1, 1, 1, 1) * means).square().sum((2, 3, 4))
        return (distances[:, 0] - distances[:, 1]) / (2 * variance)

    return sample, log_odds


@pytest.mark.slow
def test_it_approaches_the_posterior_of_gaussian_classes():
    """Its odds and their gradient, against the closed form, at several levels."""
    sample, log_odds = two_gaussians()
    level = AdmLevel(channels=32, blocks=1)
    settings = {"resolution": 2, "levels": (level,), "fold": 2}
    recipe = micro(
        classifier={**settings, "classes": ("a", "b"), "class_count": 2},
        augmentation=NO_AUGMENTATION,
    )
    config = recipe.stages[0]
    task = ClassifierTask(config, new_classifier(config, device="cpu"), torch.float32)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    generator, steps = torch.Generator().manual_seed(0), 300
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        x, labels = sample(256, generator)
        names = tuple("ab"[number] for number in labels)
        batch = Batch(x, None, ("",) * 256, names, step * 256, labels=names)
        inputs = task.inputs(batch, task.random_numbers(batch, batch.position))
        optimizer.zero_grad()
        task.losses(inputs).mean().backward()
        optimizer.step()
        rate.step()
    file = ClassifierFile(format=1, name="two", sha256="", classifier=config.classifier)
    model = ClassifierModel(file, task.model)
    for value in (4.0, 1.0, -1.0, -3.0):
        x, _ = sample(512, generator)
        logsnr = torch.full((512,), value)
        z = add_noise(x, logsnr, torch.randn(x.shape, generator=generator))
        found, exact = (
            probability_and_gradient(odds, z, logsnr)
            for odds in (lambda z, at: model(z, at).diff(dim=1)[:, 0], log_odds)
        )
        spread = float((exact[0] - 0.5).abs().mean())
        assert float((found[0] - exact[0]).abs().mean()) < 0.5 * spread, value
        alike = (found[1] * exact[1]).sum() / (found[1].norm() * exact[1].norm())
        assert float(alike) > 0.75, value


def probability_and_gradient(log_odds, z, logsnr):
    z = z.clone().requires_grad_(True)
    odds = log_odds(z, logsnr)
    return odds.sigmoid().detach(), torch.autograd.grad(odds.sum(), z)[0]


def test_numbers_are_a_function_of_seed_and_position():
    """Levels are those of whole timesteps, spread over the table; of no table, all times."""
    config = micro().stages[0]
    schedule = build_schedule(config.classifier.schedule)
    first, again, other = (classifier_numbers(config, schedule, p, 8) for p in (0, 0, 8))
    assert torch.equal(first.eps, again.eps) and not torch.equal(first.eps, other.eps)
    assert first.eps.shape == (8, 3, 16, 16)
    steps = schedule.timestep(first.logsnr)
    assert torch.equal(steps, steps.round())
    assert sorted(step // 125 for step in steps.tolist()) == list(range(8))
    cosine = build_schedule("cosine")
    between = cosine.time(classifier_numbers(config, cosine, 0, 8).logsnr) * 1000
    assert not torch.equal(between, between.round())


def test_crops_are_cut_of_larger_images(images):
    """On an image whose value is its column: rising, of four fifths of the range and more."""
    config = micro(
        augmentation=dataclasses.replace(ONLY_CROPS, flip=True), classifier={"resolution": 16}
    ).stages[0]
    assert config.read_resolution == 20
    x = torch.linspace(-1, 1, 20).expand(64, 3, 20, 20)
    numbers = classifier_numbers(config, build_schedule("cosine"), 0, 64).augmentation
    found = augmented(x, numbers, config.augmentation, side=16)
    assert found.shape == (64, 3, 16, 16)
    ranges = (found[:, 0, 8, -1] - found[:, 0, 8, 0]) / 2
    assert 0 < (ranges > 0).sum() < 64
    assert 0.7 < ranges.abs().min() < 0.8 < ranges.abs().max() <= 1


class _Known:
    """Ranks classes by the first pixels of an image, whatever the level."""

    device = torch.device("cpu")

    def __call__(self, z, logsnr):
        return z[:, 0, 0]


class _Blind(_Known):
    """Says the same of every class: a tie is no find."""

    def __call__(self, z, logsnr):
        return torch.zeros(len(z), 6)


def test_accuracy_of_what_is_known():
    """Rank 2 of 6: among the likeliest five, not the likeliest; and what noise leaves of it."""
    x = torch.zeros(40, 3, 6, 6)
    x[:, 0, 0] = torch.tensor([0.9, 0.5, 0.3, 0.1, -0.1, -0.3])
    examples = Labelled(x, torch.ones(40, dtype=torch.int64))
    quiet = [0.001]
    assert accuracy_by_level(_Known(), examples, most=1, ratios=quiet) == {"0.001": 0.0}
    assert accuracy_by_level(_Known(), examples, most=5, ratios=quiet) == {"0.001": 1.0}
    last = dataclasses.replace(examples, labels=torch.full((40,), 5))
    assert accuracy_by_level(_Known(), last, most=5, ratios=quiet) == {"0.001": 0.0}
    first = dataclasses.replace(examples, labels=torch.zeros(40, dtype=torch.int64))
    found = accuracy_by_level(_Known(), first, most=1)
    assert found["0.05"] == 1.0 and found["20"] < 0.6
    assert accuracy_by_level(_Blind(), first, most=5, ratios=quiet) == {"0.001": 0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.labels=null", "data.labels=null for a classifier"),
        ("data.crop=32", "data.crop or data.flip for a classifier"),
        ("data.flip=true", "data.crop or data.flip for a classifier"),
        ("augmentation.noise=0.1", "augmentation.noise for a classifier"),
        ('classifier.classes=["a"]', "class_count=5 with 1 classes"),
        ("classifier.head_dim=7", "heads of 7"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        override(load_recipe("classifier-emoji-64").stages[0], [change])


def test_data_that_do_not_fit_are_refused(images, tmp_path):
    """One class, an image without one, another number of classes, one that was not trained."""
    out = tmp_path / "run"
    shutil.copytree(images / "red", tmp_path / "one/red")
    with pytest.raises(UsageError, match="single class 'red'"):
        train(micro(), out, tmp_path / "one")
    data = tmp_path / "data"
    shutil.copytree(images, data)
    shutil.copy(data / "red/top.png", data / "stray.png")
    with pytest.raises(UsageError, match=r"no label of 1 of 7 images: stray"):
        train(micro(), out, data)
    with pytest.raises(ConfigError, match=r"got 3 classes, blue, green, red, for a .* of 2"):
        train(micro(classifier={"class_count": 2}), out, images)
    named = {"classes": ("blue", "red"), "class_count": 2}
    with pytest.raises(UsageError, match="got the label 'green'"):
        train(micro(classifier=named), out, images)
    assert not out.exists()


def test_changed_data_are_refused_when_resumed(images, tmp_path):
    """An image without a class, and one of a class that is not trained."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    recipe = micro(total_images=16, checkpoint_images=8)
    assert train(recipe, out, data) == 0
    shutil.rmtree(out / "checkpoints/16")
    shutil.copy(data / "red/top.png", data / "stray.png")
    with pytest.raises(UsageError, match=r"no label of 1 of 7 images: stray"):
        train(recipe, out, data, resume=True)
    (data / "pink").mkdir()
    (data / "stray.png").rename(data / "pink/top.png")
    with pytest.raises(UsageError, match="got the label 'pink'; expected one of the 3 classes"):
        train(recipe, out, data, resume=True)


def test_another_classifier_is_no_start(images, tmp_path):
    assert train(micro(total_images=8), tmp_path / "three", images) == 0
    data = tmp_path / "data"
    shutil.copytree(images, data)
    (data / "red").rename(data / "pink")
    with pytest.raises(UsageError, match="a classifier of blue, green, red; expected one of"):
        train(micro(total_images=8), tmp_path / "run", data, init=tmp_path / "three")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--parallel", "stages"), "got --parallel stages for micro-classifier"),
        (("--only", "draft"), "got --only draft for micro-classifier"),
        (("--init", "default"), "got classifier 'default'; expected a folder with classifier.json"),
        (("--set", "lora.rank=4"), "unknown key 'lora'"),
        (("--set", "text_encoder=minilm"), "unknown key 'text_encoder'"),
    ],
)
def test_options_of_cascades_are_refused_in_one_line(images, tmp_path, capsys, words, message):
    recipe, out = tmp_path / "classifier.json", tmp_path / "run"
    recipe.write_text(json.dumps(to_dict(micro())))
    assert command(["train", str(recipe), "--data", str(images), "--out", str(out), *words]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not out.exists()


def test_a_run_of_a_classifier_makes_no_cascade(images, tmp_path, capsys):
    """Its checkpoints hold a classifier, its display names it, and no command takes it for more."""
    run = tmp_path / "run"
    assert train(micro(total_images=8, posthoc_ema_images=8), run, images, quiet=False) == 0
    told = capsys.readouterr()
    assert "micro-classifier classifier: " in told.err and "with --classifier" in told.out
    names = {path.name for path in (run / "checkpoints/8").iterdir()}
    assert "classifier" in names and "cascade" not in names
    joined = ["-o", str(tmp_path / "joined")]
    for words in (["assemble", str(run)], ["ema", str(run), "--length", "0.1"]):
        assert command([*words, *joined]) != 0
        (line,) = capsys.readouterr().err.splitlines()
        assert "classifier" in line
    assert command(["info", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "classifier" and facts["classes"] == ["blue", "green", "red"]


@pytest.mark.slow
def test_two_processes_have_the_log_of_one_and_resume_to_the_bit(images, tmp_path):
    """With batches that the last step cuts; both killed between a checkpoint and that."""
    recipe = micro(total_images=84, checkpoint_images=40)
    assert train(recipe, tmp_path / "one", images) == 0
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    two = TwoProcesses(tmp_path / "recipe.json", images)
    two.train(tmp_path / "two")
    ours, theirs = ([line["loss"] for line in lines(tmp_path / run)] for run in ("one", "two"))
    assert theirs == pytest.approx(ours, rel=1e-3)
    two.train_and_kill(tmp_path / "killed", images=64, checkpoint=40)
    two.train(tmp_path / "killed", "--resume")
    assert_same_bits(tmp_path / "killed", tmp_path / "two")
    assert load_classifier(tmp_path / "two").classes == ("blue", "green", "red")
