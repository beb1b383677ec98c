"""What runs wrote down is read back exactly."""

import json

import pytest

from calotype.config.typed_json import to_dict
from calotype.emoji.provenance import learning_curves
from calotype.evaluation.runs import read_run, read_runs
from calotype.training.recipes import load_recipe


def lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


@pytest.fixture()
def run(tmp_path):
    """Two stages of `tiny`: 100 images at 50/s, then 40 at 10/s, and half a line."""
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(load_recipe("tiny"))))
    log = [
        {"images": 10 * n, "stage": 8, "loss": 1 / n, "images_per_second": 50.0, "skipped": 0}
        for n in range(1, 11)
    ]
    log += [
        {"images": 100 + 10 * n, "stage": 16, "loss": None if n == 1 else 0.5 * n}
        | {"images_per_second": 10.0, "skipped": 2}
        for n in range(1, 5)
    ]
    lines(tmp_path / "log.jsonl", log)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"images": 150, "sta')
    check = {"images": 120, "stage": 16, "validation": {"1": 0.2}, "trained": {"1": 0.1}}
    lines(tmp_path / "validation.jsonl", [check | {"seconds": 3.0}])
    return tmp_path


def test_reads_each_stage(run):
    base, second = read_run(run)
    assert (base.images, base.loss, base.skipped) == (100, pytest.approx(0.1), 0)
    assert base.seconds == pytest.approx(2.0) and base.validations == ()
    assert (second.images, second.loss, second.skipped) == (40, pytest.approx(2.0), 2)
    assert second.seconds == pytest.approx(4.0 + 3.0)
    assert second.config.stage.resolution == 16 and second.recipe == "tiny"
    check = second.validations[0]
    assert (check.images, check.unseen, check.trained) == (20, {"1": 0.2}, {"1": 0.1})


def test_missing_runs_are_passed_over(run, tmp_path):
    assert read_run(tmp_path / "nowhere") == []
    stages = [run.config.stage.resolution for run in read_runs([tmp_path / "nowhere", run])]
    assert stages == [8, 16]


def test_learning_curves_in_eight_rows(run):
    # The errors of check n are n / 1000 and n / 100; the base's 100 images come before.
    checks = [
        {"images": 100 + n, "stage": 16, "trained": {"20": n / 1000, "1": n / 2000}}
        | {"validation": {"20": n / 100, "1": None}}
        for n in range(1, 30)
    ]
    lines(run / "validation.jsonl", checks)
    text = learning_curves(read_runs([run, run]))
    base, second = text.split("**16²**")[:2]
    assert "**8²**, `tiny`:\n\nErrors by noise level: not available." in base
    rows = [line for line in second.split("**8²**")[0].splitlines() if line.startswith("| ")]
    assert rows[0] == "| images seen | σ/α 20 | σ/α 1 |" and len(rows) == 2 + 8
    assert rows[2] == "| 1 | 0.0010 / 0.0100 | 0.0005 / – |"
    assert rows[6] == "| 17 | 0.0170 / 0.1700 | 0.0085 / – |"
    assert rows[-1] == "| 29 | 0.0290 / 0.2900 | 0.0145 / – |"
    # Of two runs of a stage both are shown.
    assert text.count("**16²**, `tiny`:") == 2
    assert "Runs: not available." in learning_curves(())
