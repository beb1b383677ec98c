"""Two processes against one: the same examples, the same noise, the same losses."""

import dataclasses
import json
import os
import shutil
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch
from distributed_worker import spoil
from killed import kill_all, lines, torchrun
from safetensors.torch import load_file

from calotype.config.diffusion import DraftTrainingConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.typed_json import to_dict
from calotype.data.batch import BatchPlan
from calotype.data.batches import sequential_batches
from calotype.data.open import open_source
from calotype.errors import ConfigError
from calotype.launch import Place
from calotype.training import progress, stream
from calotype.training.distributed import Group
from calotype.training.sharded_checkpoint import read_shards
from calotype.training.stream import check_batches, joined, shortened

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture
def uneven(micro):
    """Batches of 3 a process in parts of 2 and 1; the last batch has 3 images in all."""
    base = micro(
        batch_size=6,
        total_images=21,
        checkpoint_images=6,
        grid_images=12,
        validation_images=12,
        posthoc_ema_images=12,
        with_draft=True,
        draft=DraftTrainingConfig(images=16, batch_size=8, folds=2, fold_images=16),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_images=6, accumulation=2),
    )
    network = dataclasses.replace(base.stage.network, dropout=0.0)
    stage = dataclasses.replace(base.stage, network=network)
    return Recipe(name="uneven", stages=(dataclasses.replace(base, stage=stage),))


@pytest.fixture
def stop_at(monkeypatch):
    """Send this process a SIGTERM when so many images have been seen."""

    def arrange(images):
        def show(self, now, meter):
            if now == images:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(progress.TrainingDisplay, "show", show)

    return arrange


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


def run_worker(place):
    """Exit code, output and errors of the worker, from what one process has begun."""
    kept = {"whole", "factors", "begun", "data", "recipe.json", "adafactor.json"}
    for path in [path for path in place.iterdir() if path.name not in kept]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("mixed", "from-one"):
        shutil.copytree(place / "begun", place / name, symlinks=True)
    process = torchrun(WORKER, place)
    output, errors = process.communicate(timeout=1500)
    return process.returncode, output, errors


@pytest.fixture
def runs(place, uneven, train, images, stop_at):
    """The folder in which one process and two have trained; made once."""
    if (place / "whole").exists():
        return place
    (place / "recipe.json").write_text(json.dumps(to_dict(uneven)))
    adafactor = OptimizerConfig(kind="adafactor", learning_rate=1e-2, warmup_images=6)
    quiet = {"validation_images": 0, "grid_images": 0, "total_images": 18}
    config = dataclasses.replace(uneven.stages[0], optimizer=adafactor, **quiet)
    factored = Recipe(name="factored", stages=(config,))
    (place / "adafactor.json").write_text(json.dumps(to_dict(factored)))
    shutil.copytree(images, place / "data")
    assert train(factored, place / "factors", data=place / "data") == 0
    assert train(uneven, place / "whole", data=place / "data") == 0
    stop_at(6)
    assert train(uneven, place / "begun", data=place / "data") == 0
    stop_at(-1)
    code, output, errors = run_worker(place)
    if code != 0 and "Signal 11" in errors:
        # Seen once in some hundred runs, in a gather over gloo, and not again when looked for:
        # Python alone cannot do that. A second run has to pass, and the first one is told.
        warnings.warn(f"a process crashed: {errors[-4000:]}", stacklevel=1)
        code, output, errors = run_worker(place)
    assert code == 0, errors
    (place / "output.txt").write_text(output)
    return place


def assert_same_losses(run, whole):
    ours, theirs = lines(run / "log.jsonl"), lines(whole / "log.jsonl")
    assert [line["images"] for line in ours] == [6, 12, 18, 21]  # each step once
    for key in ("images", "loss", "grad_norm", "lr"):
        expected = pytest.approx([line[key] for line in theirs], rel=2e-5)
        assert [line[key] for line in ours] == expected, key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["copies", "shards"])
def test_two_processes_have_the_losses_of_one(runs, name):
    assert_same_losses(runs / name, runs / "whole")
    one, two = (runs / run / "checkpoints/latest/cascade/8" for run in ("whole", name))
    expected, weights = (load_file(path / "weights.safetensors") for path in (one, two))
    assert expected.keys() == weights.keys()
    # Adam moves a weight whose gradient is nothing but rounding, too: all weights together.
    apart = sum(
        float((weights[key].float() - value.float()).square().sum())
        for key, value in expected.items()
    )
    whole = sum(float(value.float().square().sum()) for value in expected.values())
    assert apart < 1e-6 * whole
    one, two = (lines(runs / run / "validation.jsonl")[-1] for run in ("whole", name))
    assert two["validation"] == pytest.approx(one["validation"], rel=1e-3)
    grids = [{path.name for path in (runs / run / "grids").iterdir()} for run in ("whole", name)]
    assert grids[0] == grids[1]
    averages = [sorted(p.name for p in (runs / run / "ema").iterdir()) for run in ("whole", name)]
    assert averages[0] == averages[1]
    for path in (runs / "whole" / "ema").iterdir():
        expected, found = load_file(path), load_file(runs / name / "ema" / path.name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_adafactor_steps_over_whole_weights(runs):
    ours, theirs = (lines(runs / run / "log.jsonl") for run in ("factors-two", "factors"))
    for key in ("images", "loss", "grad_norm"):
        expected = pytest.approx([line[key] for line in theirs], rel=2e-5)
        assert [line[key] for line in ours] == expected, key


@pytest.mark.slow
def test_copies_are_checkpoints_of_one_process(runs):
    names = [
        {path.name for path in (runs / run / "checkpoints/latest").iterdir()}
        for run in ("whole", "copies", "shards")
    ]
    assert names[0] == names[1] and "optimizer.safetensors" in names[1]
    assert "sharded" in names[2] and "optimizer.safetensors" not in names[2]
    assert len(list((runs / "shards/checkpoints/latest/sharded").iterdir())) == 2


@pytest.mark.slow
def test_shards_resume_to_the_bit(runs):
    """One process of two was asked to end: both did, after the same step."""
    assert json.loads((runs / "stopped.codes.json").read_text()) == [0, 0]
    assert "stopped at 12 images" in (runs / "output.txt").read_text()
    assert lines(runs / "stopped/log.jsonl") == lines(runs / "shards/log.jsonl")
    ours, theirs = (read_shards(runs / run / "checkpoints/21") for run in ("stopped", "shards"))
    assert ours.keys() == theirs.keys() and len(ours) == 5
    for file, tensors in theirs.items():
        assert ours[file].keys() == tensors.keys()
        assert all(torch.equal(ours[file][key], value) for key, value in tensors.items()), file


@pytest.mark.slow
def test_one_process_then_two_then_one(runs, train, uneven):
    assert [line["images"] for line in lines(runs / "mixed/log.jsonl")] == [6, 12]
    assert train(uneven, runs / "mixed", data=runs / "data", resume=True) == 0
    assert_same_losses(runs / "mixed", runs / "whole")


@pytest.mark.slow
def test_shards_go_on_in_one_process_and_the_other_way_round(runs, train, uneven, capsys):
    assert (runs / "to-one/checkpoints/latest").resolve().name == "12"
    assert train(uneven, runs / "to-one", data=runs / "data", resume=True) == 0
    assert "the number of processes has changed" in capsys.readouterr().out
    assert_same_losses(runs / "to-one", runs / "whole")
    assert_same_losses(runs / "from-one", runs / "whole")


@pytest.mark.parametrize("name", ["rewound-copies", "rewound-shards"])
@pytest.mark.slow
def test_a_spike_sends_all_processes_back(runs, train, uneven, tmp_path, monkeypatch, name):
    monkeypatch.setattr(stream, "batches", stream.batches)  # put back afterwards
    guards = spoil(12)
    assert train(uneven, tmp_path / "one", data=runs / "data", guards=guards) == 0
    assert_same_losses(runs / name, tmp_path / "one")
    assert [line["rewinds"] for line in lines(runs / name / "log.jsonl")] == [0, 0, 1, 1]
    one, two = (lines(run / "skipped.jsonl") for run in (tmp_path / "one", runs / name))
    assert one == two and two[0]["positions"] == [12, 18] and len(two[0]["keys"]) == 6


def test_parts_of_a_joined_batch_are_its_rows(images, micro):
    config = micro()

    def batch(seed, size, rank, count):
        plan = BatchPlan(
            resolution=8, lowres_resolution=None, config=config.data, batch_size=size,
            seed=seed, rank=rank, world_size=count,
        )  # fmt: skip
        return next(sequential_batches(open_source(images, resolution=8, data=config.data), plan))

    def both(rank, count):
        return joined(batch(0, 6, rank, count), batch(1, 2, rank, count), weight=0.5, position=0)

    whole = both(0, 1)
    for total in (8, 5, 1):
        expected = shortened(whole, total)
        for rank in range(2):
            part = shortened(both(rank, 2), total)
            assert (len(part.x), part.images) == (4, total)
            for row, x, key, weight in zip(
                part.share.rows, part.x, part.keys, part.weights, strict=True
            ):
                if row >= total:
                    assert weight == 0
                    continue
                assert torch.equal(x, expected.x[row]) and key == expected.keys[row]
                assert weight == expected.weights[row]
    rows = sorted(row for rank in range(2) for row in both(rank, 2).share.rows)
    assert rows == list(range(8))


def test_batches_that_cannot_be_shared_are_refused_at_once(micro):
    check_batches(micro(batch_size=9), Group(Place(0, 3)))
    with pytest.raises(ConfigError, match="batch_size=9 for 2 processes"):
        check_batches(micro(batch_size=9), Group(Place(0, 2)))


@pytest.fixture
def command(place, uneven, images):
    """`torchrun -m calotype train ...` with the recipe of this module."""
    recipe = place / "command.json"
    recipe.write_text(json.dumps(to_dict(uneven)))

    def arrange(out, *more):
        settings = ("--dtype", "float32", "--device", "cpu", "--quiet")
        return torchrun(
            "-m", "calotype", "train", recipe, "--data", images, "--out", out, *settings, *more
        )

    return arrange


@pytest.mark.slow
def test_an_error_of_all_is_reported_once_and_nobody_hangs(command, tmp_path):
    process = command(tmp_path / "run", "--set", "batch_size=5")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("calotype: got batch_size=5 for 2 processes") == 1


@pytest.mark.slow
def test_an_error_of_one_ends_the_others(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")  # seen by the first process alone
    process = command(tmp_path / "run")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("calotype: ") == 1 and "is not empty" in errors


@pytest.mark.slow
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that frees a tensor while the interpreter ends would abort the process."""
    script = tmp_path / "leave.py"
    script.write_text(
        "import os\n"
        "from calotype.training.distributed import open_group\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "with open_group() as group:\n"
        "    group.all_gather(group.rank)\n"
        "    assert len(os.listdir('/proc/self/task')) > before\n"
        "assert len(os.listdir('/proc/self/task')) == before\n"
    )
    process = torchrun(script)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_torchrun_is_asked_to_end_and_resumed(command, tmp_path):
    out = tmp_path / "run"
    process = command(out, "--images", "3000")
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert "stopped at" in output, errors
    stopped = lines(log)[-1]["images"]
    assert int((out / "checkpoints/latest").resolve().name) == stopped < 3000
    process = command(out, "--images", "3000", "--resume")
    while process.poll() is None and lines(log)[-1]["images"] < stopped + 12:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert f"resuming from checkpoint {stopped}" in output, errors
    images = [line["images"] for line in lines(log)]
    assert images == list(range(6, images[-1] + 1, 6))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_training_of_the_draft_ends_and_resumes_to_the_bit(command, place, tmp_path, how):
    settings = ("--set", "draft.images=12000", "--set", "draft.fold_images=12000")
    whole = place / "whole-draft"  # made once
    if not whole.exists():
        process = command(whole, *settings)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    out = tmp_path / "run"
    process = command(out, *settings)
    # The second fold is what takes its turn when the first has been written.
    while process.poll() is None and not (out / "draft" / "fold-0.safetensors").exists():
        time.sleep(0.02)
    if how == signal.SIGKILL:
        kill_all(process)
    else:
        process.send_signal(how)
    output, errors = process.communicate(timeout=300)
    assert how == signal.SIGKILL or "stopped at 0" in output, errors
    assert not (out / "log.jsonl").exists() or not (out / "log.jsonl").read_text(), "too late"
    process = command(out, *settings, "--resume")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    for path in (whole / "draft").iterdir():
        assert (out / "draft" / path.name).read_bytes() == path.read_bytes(), path.name
    assert lines(out / "log.jsonl") == lines(whole / "log.jsonl")
