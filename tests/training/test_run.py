import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calotype.cascade import Cascade
from calotype.config.network import LevelConfig, UNetConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.errors import CalotypeError, UsageError
from calotype.storage.lock import locked
from calotype.tasks.initial import initial_weights
from calotype.training import progress
from calotype.training.recipes import load_recipe
from calotype.training.run_folder import entered

TIMINGS = (
    "images_per_second",
    "data_wait",
    "seconds",
    "flops_per_second",
    "flops_share_of_peak",
)


def _lines(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def _assert_same_run(a, b):
    """Equal to the bit: checkpoints, logs (but for timings) and grids."""
    for kind in ("*.safetensors", "state.json", "cascade/*/weights.safetensors"):
        for path in sorted((a / "checkpoints").glob(f"*/{kind}")):
            other = b / path.relative_to(a)
            assert other.read_bytes() == path.read_bytes(), f"{other} differs"
    names = [sorted({*os.listdir(run / "checkpoints")} - {"damaged"}) for run in (a, b)]
    assert names[0] == names[1]
    for name in ("log.jsonl", "validation.jsonl"):
        assert _lines(a / name) == _lines(b / name)
    grids = [{p.name: p.read_bytes() for p in (run / "grids").iterdir()} for run in (a, b)]
    assert grids[0] == grids[1] and grids[0]


@pytest.fixture
def stop_at(monkeypatch):
    """Send a signal to this process when so many images have been seen."""

    def arrange(images, number):
        show = progress.TrainingDisplay.show

        def show_and_signal(self, now, meter):
            show(self, now, meter)
            if now == images:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(progress.TrainingDisplay, "show", show_and_signal)

    return arrange


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A place for one finished run that several tests compare with."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def whole(finished, train, micro_recipe):
    """The run folder of an uninterrupted run."""
    if not finished.exists():
        assert train(micro_recipe(), finished) == 0
    return finished


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["term", "ctrl-c"]
)
def test_a_stopped_run_resumes_to_the_bit(
    train, micro_recipe, whole, tmp_path, stop_at, number, code
):
    out = tmp_path / "run"
    stop_at(28, number)  # between checkpoints, and in the decay
    assert train(micro_recipe(), out) == code
    assert (out / "checkpoints" / "28").is_dir()
    assert _lines(out / "log.jsonl")[-1]["images"] == 28
    stop_at(-1, number)
    assert train(micro_recipe(), out, resume=True) == 0
    shutil.rmtree(out / "checkpoints" / "28", ignore_errors=True)
    kept = {"48", "32", "24", "latest"}  # 28 took the place of 16 among the newest three
    assert set(os.listdir(out / "checkpoints")) <= {*kept, "16"}
    for name in kept - {"latest"}:
        for path in (whole / "checkpoints" / name).rglob("*.safetensors"):
            other = out / path.relative_to(whole)
            assert other.read_bytes() == path.read_bytes(), f"{other} differs"
    assert _lines(out / "log.jsonl") == _lines(whole / "log.jsonl")
    assert _lines(out / "validation.jsonl") == _lines(whole / "validation.jsonl")
    for path in (whole / "grids").iterdir():
        assert (out / "grids" / path.name).read_bytes() == path.read_bytes()


def test_a_killed_run_resumes_to_the_bit(train, micro_recipe, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    show = progress.TrainingDisplay.show

    class KilledError(BaseException):
        pass

    def die(self, now, meter):
        if now == 40:
            raise KilledError
        show(self, now, meter)

    monkeypatch.setattr(progress.TrainingDisplay, "show", die)
    with pytest.raises(KilledError):
        train(micro_recipe(), out)
    monkeypatch.undo()
    assert _lines(out / "log.jsonl")[-1]["images"] == 40
    assert train(micro_recipe(), out, resume=True) == 0
    _assert_same_run(whole, out)


def test_a_damaged_checkpoint_is_passed_over(train, micro_recipe, whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out, symlinks=True)
    (out / "checkpoints/48/weights.safetensors").write_bytes(b"rot")
    assert train(micro_recipe(), out, resume=True) == 0
    assert "checkpoint 48 is damaged" in capsys.readouterr().out
    assert (out / "checkpoints/damaged/48/weights.safetensors").read_bytes() == b"rot"
    _assert_same_run(whole, out)


def test_a_finished_run_says_so(train, micro_recipe, whole, tmp_path, capsys):
    before = (whole / "log.jsonl").read_bytes()
    assert train(micro_recipe(), whole, resume=True) == 0
    assert "finished" in capsys.readouterr().out
    assert (whole / "log.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_longer_run_goes_on_from_where_the_decay_began(train, micro_recipe, whole, tmp_path):
    longer = tmp_path / "longer"
    assert train(micro_recipe(keep_checkpoints=9), longer, images=80) == 0
    out = tmp_path / "run"
    shutil.copytree(whole, out, symlinks=True)
    assert train(micro_recipe(keep_checkpoints=9), out, images=80, resume=True) == 0
    assert _lines(out / "log.jsonl") == _lines(longer / "log.jsonl")
    for name in ("weights", "ema", "optimizer"):
        file = f"checkpoints/80/{name}.safetensors"
        assert (out / file).read_bytes() == (longer / file).read_bytes()
    assert (out / "finished" / "48" / "manifest.json").is_file()  # the old end is not lost
    # Without --images it is the longer run that is finished now.
    assert train(micro_recipe(), out, resume=True) == 0
    with pytest.raises(UsageError, match="expected at least that"):
        train(micro_recipe(), out, images=60, resume=True)


def test_a_folder_that_is_not_empty_is_refused(train, micro_recipe, whole, tmp_path):
    with pytest.raises(UsageError, match="--resume"):
        train(micro_recipe(), whole)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(micro_recipe(), tmp_path / "run")


def test_what_never_took_a_step_is_no_run(train, micro_recipe, whole, images, tmp_path):
    out, empty = tmp_path / "run", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no images"):
        train(micro_recipe(), out, data=empty, init=whole)
    assert not out.exists()
    out.mkdir()  # a run that was killed there
    shutil.copy2(whole / "recipe.json", out / "recipe.json")
    (out / "init.txt").write_text(str(whole))
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(micro_recipe(), out)
    (out / "mine.txt").unlink()
    (out / "log.jsonl").write_text('{"images": 4}\n')
    with pytest.raises(UsageError, match="not empty"):
        train(micro_recipe(), out)
    (out / "log.jsonl").write_text("")
    assert train(micro_recipe(), out) == 0  # and without the weights of the first attempt
    _assert_same_run(whole, out)


def test_resume_without_a_checkpoint_starts_over(train, micro_recipe, whole, tmp_path, capsys):
    out = tmp_path / "run"
    (out / "checkpoints" / "16").mkdir(parents=True)
    shutil.copy2(whole / "recipe.json", out / "recipe.json")
    (out / "checkpoints" / "16" / "weights.safetensors").write_bytes(b"half")
    (out / "log.jsonl").write_text('{"images": 4}\n')
    assert train(micro_recipe(), out, resume=True) == 0
    assert "starting over" in capsys.readouterr().out
    _assert_same_run(whole, out)


def test_a_second_trainer_is_refused(train, micro_recipe, whole):
    before = (whole / "log.jsonl").read_bytes()
    for resume in (False, True):
        with locked(whole / ".lock"), pytest.raises(UsageError, match="another process works in"):
            train(micro_recipe(), whole, images=80, resume=resume)
    assert (whole / "log.jsonl").read_bytes() == before


def test_other_settings_are_refused(train, micro_recipe, whole):
    with pytest.raises(UsageError, match=r"text_dropout: was 0.1, got 0.5"):
        train(micro_recipe(text_dropout=0.5), whole, resume=True)
    with pytest.raises(UsageError, match="seed: was 0, got 7"):
        train(micro_recipe(), whole, resume=True, seed=7)


def test_changed_data_are_refused(train, micro_recipe, images, tmp_path, stop_at):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    stop_at(20, signal.SIGTERM)
    assert train(micro_recipe(), out, data=data) == 0
    stop_at(-1, signal.SIGTERM)
    (data / "red-left.png").unlink()
    with pytest.raises(CalotypeError, match="--allow-inexact-resume"):
        train(micro_recipe(), out, data=data, resume=True)
    assert train(micro_recipe(), out, data=data, resume=True, allow_inexact_resume=True) == 0


def test_a_length_that_is_no_multiple_of_the_batch(train, micro_recipe, tmp_path):
    assert train(micro_recipe(), tmp_path / "run", images=18) == 0
    assert (tmp_path / "run/checkpoints/18").is_dir()
    assert [line["images"] for line in _lines(tmp_path / "run/log.jsonl")] == [4, 8, 12, 16, 18]


def test_accumulation_takes_the_same_steps(train, micro, tmp_path):
    losses = []
    for number, accumulation in enumerate((1, 2)):
        base = micro(total_images=16)
        network = dataclasses.replace(base.stage.network, dropout=0.0)
        stage = dataclasses.replace(base.stage, network=network)
        optimizer = dataclasses.replace(base.optimizer, accumulation=accumulation)
        config = dataclasses.replace(base, stage=stage, optimizer=optimizer)
        out = tmp_path / str(number)
        assert train(Recipe(name="micro", stages=(config,)), out) == 0
        losses.append([line["loss"] for line in _lines(out / "log.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_start_from_weights_alone(train, micro_recipe, whole, tmp_path):
    optimizer = OptimizerConfig(learning_rate=0.0, warmup_images=0)
    recipe = micro_recipe(optimizer=optimizer, total_images=4)
    expected = load_file(whole / "checkpoints/latest/cascade/8/weights.safetensors")
    for number, path in enumerate(
        (
            whole,
            whole / "checkpoints/latest/cascade",
            whole / "checkpoints/latest/cascade/8",
            whole / "checkpoints/latest/cascade/8/weights.safetensors",
        )
    ):
        out = tmp_path / str(number)
        assert train(recipe, out, init=path) == 0
        weights = load_file(out / "checkpoints/4/ema.safetensors")
        assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_wrong_folders_say_which_option_and_what_it_takes(tmp_path):
    for path in (Path("nope"), tmp_path):
        with pytest.raises(UsageError, match=r"got --init .*expected 'default', a file of weights"):
            initial_weights(path, resolution=8)
    (tmp_path / "file").write_text("")
    folder = entered(tmp_path / "file" / "run", load_recipe("tiny"), resume=False)
    with pytest.raises(UsageError, match=r"cannot make the run folder .*; choose another --out"):
        folder.__enter__()


def test_tiny_trains_its_stages_in_turn_and_draws(train, tmp_path):
    out = tmp_path / "run"
    assert train(load_recipe("tiny"), out, images=16) == 0
    assert [line["images"] for line in _lines(out / "log.jsonl")] == [8, 16, 24, 32, 40, 48]
    assert [line["stage"] for line in _lines(out / "log.jsonl")] == [8, 8, 16, 16, 32, 32]
    images = Cascade.load(out).sample(["a red square"], seeds=[1]).images
    assert [tuple(image.shape) for image in images] == [(1, 3, s, s) for s in (8, 16, 32)]


@pytest.mark.slow
def test_a_run_stopped_in_its_second_stage_resumes_to_the_bit(train, tmp_path, stop_at):
    tiny = load_recipe("tiny")
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(tiny, whole, images=16) == 0
    stop_at(24, signal.SIGTERM)
    assert train(tiny, out, images=16) == 0
    stop_at(-1, signal.SIGTERM)
    assert train(tiny, out, images=16, resume=True) == 0
    assert _lines(out / "log.jsonl") == _lines(whole / "log.jsonl")
    for path in (whole / "checkpoints" / "48").rglob("*.safetensors"):
        assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_a_network_without_text_trains(train, micro, tmp_path):
    base = micro(total_images=8)
    network = UNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=0)
    stage = dataclasses.replace(base.stage, network=network)
    config = dataclasses.replace(base, stage=stage, text_encoder="none")
    assert train(Recipe(name="none", stages=(config,)), tmp_path / "run") == 0


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart(train, micro, tmp_path):
    base = micro()
    levels = tuple(dataclasses.replace(level, channels=32) for level in base.stage.network.levels)
    network = dataclasses.replace(base.stage.network, dropout=0.0, levels=levels)
    config = dataclasses.replace(
        base,
        stage=dataclasses.replace(base.stage, network=network),
        data=dataclasses.replace(base.data, flip=False),
        batch_size=16,
        total_images=2400,
        ema_halflife_images=200,
        text_dropout=0.0,
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup_images=160, decay_from=0.5),
        checkpoint_images=2400,
        grid_images=0,
        validation_images=2400,
    )
    assert train(Recipe(name="overfit", stages=(config,)), tmp_path / "run") == 0
    errors = _lines(tmp_path / "run/validation.jsonl")[-1]["trained"]
    # Images differ by about 1 (mean square) from each other: text decides from pure noise.
    assert errors["20"] < 0.05 and errors["1"] < 0.05 and errors["0.1"] < 0.01
