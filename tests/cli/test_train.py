import dataclasses
import importlib
import json
import re
import sys
import types
from pathlib import Path

import pytest

from calotype.cli.train import override_recipe
from calotype.data.work import usable_cores
from calotype.errors import ConfigError
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions


@pytest.fixture
def runs(monkeypatch):
    """Stands in for the trainer; collects what it is called with."""
    calls = []

    def run_recipe(recipe, *, data, out, options, tasks):
        calls.append((recipe, data, out, options))
        return 130 if options.resume else 0

    monkeypatch.setattr("calotype.training.run.run_recipe", run_recipe)
    return calls


def test_train_passes_everything_on(command, runs, tmp_path):
    words = ("train", "tiny", "--data", ".", "--out", "run", "--images", "50", "--seed", "3")
    code, out, err = command(*words, "--set", "batch_size=4", "--quiet", "--dtype", "bfloat16")
    assert (code, out, err) == (0, "", "")
    recipe, data, folder, options = runs[0]
    assert [stage.batch_size for stage in recipe.stages] == [4, 4, 4]
    assert (data, folder) == (Path("."), Path("run"))
    assert options == RunOptions(images=50, seed=3, quiet=True, dtype="bfloat16")


def test_the_exit_code_is_the_trainers(command, runs):
    assert command("train", "tiny", "--data", ".", "--out", "run", "--resume")[0] == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["emoji-65"], "did you mean"),
        (["tiny"], "no --data"),
        (["tiny", "--data", "."], "no --out"),
        (["tiny", "--data", "none", "--out", "run"], "missing"),
        (["tiny", "--data", ".", "--out", "run", "--images", "0"], "--images 0"),
        (["tiny", "--data", ".", "--out", "run", "--start-over"], "without --resume"),
        (["tiny", "--data", ".", "--out", "run", "--set", "batchsize=1"], "batch_size"),
        (["tiny", "--data", ".", "--out", "run", "--set", "batch_size=x"], "expected int"),
    ],
)
def test_wrong_input_starts_nothing(command, runs, words, message):
    code, out, err = command("train", *words)
    assert (code, out, err.count("\n"), runs) == (2, "", 1, [])
    assert message in err


def test_settings_of_one_stage_or_of_all():
    tiny = load_recipe("tiny")
    changed = override_recipe(tiny, ["stages.1.seed=5", "optimizer.learning_rate=0.5"])
    assert [stage.seed for stage in changed.stages] == [0, 5, 0]
    assert {stage.optimizer.learning_rate for stage in changed.stages} == {0.5}
    with pytest.raises(ConfigError):
        override_recipe(tiny, ["stages.7.seed=5"])


def test_a_dry_run_heeds_what_the_run_would_be_asked_for(command, runs, monkeypatch):
    seen = []
    module = importlib.import_module("calotype.tasks.dry_run")

    def row(config, runtime):
        seen.append(runtime.to_dict())
        costs = dict.fromkeys((f.name for f in dataclasses.fields(module.DryRunRow)), 1)
        return module.DryRunRow(**{**costs, "images": config.total_images})

    monkeypatch.setattr(module, "_row", row)
    words = ["train", "tiny", "--images", "100", "--threads", "1", "--dtype", "bf16", "--dry-run"]
    words += ["--device", "cpu"]
    code, out, err = command(*words, "--json")
    assert (code, err, runs) == (0, "", [])
    assert [row["images"] for row in json.loads(out)] == [100, 100, 100]
    assert seen == [{"device": "cpu", "dtype": "bfloat16", "threads": 1}] * 3
    table = command(*words)[1].rstrip().splitlines()
    ends = {re.search(r"(?<=\S)  (?=\S)", line).start() for line in table if line}
    assert len(ends) == 1, table
    assert command("train", "tiny", "--images", "0", "--dry-run")[0] == 2


def test_data_emoji_passes_everything_on(command, monkeypatch):
    calls = []
    module = types.ModuleType("calotype.emoji.build")
    module.build_emoji = lambda out, **options: (
        calls.append((out, options))
        or types.SimpleNamespace(counts={"train": 6400}, broken=["noto/x 256"])
    )
    monkeypatch.setitem(sys.modules, "calotype.emoji.build", module)
    code, out, _ = command(
        "data", "emoji", "--out", "d", "--sets", "noto, twemoji", "--size", "256"
    )
    assert code == 0 and "6,400  train" in out and "noto/x 256" in out
    count = usable_cores()
    options = {"sets": ["noto", "twemoji"], "sizes": (256,), "processes": count, "ray": None}
    assert callable(calls[0][1].pop("on_images"))
    assert calls == [(Path("d"), options)]
    assert command("data", "emoji", "--out", "d", "--size", "64")[0] == 2


def test_assemble_checks_before_it_joins(command):
    assert command("assemble", "run", "-o", "no/such/cascade")[0] in (1, 2)
    assert command("assemble", "run", "-o", "c", "--dtype", "int8")[0] in (1, 2)
