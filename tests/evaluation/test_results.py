"""What an evaluation wrote is read again; what is damaged is told in one line."""

import json
import shutil

import numpy as np
import pytest

from calotype.cli import run
from calotype.errors import UsageError
from calotype.evaluation.evaluate import evaluate
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.metrics.intervals import Estimate
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.results import Number, number_of, read_results
from calotype.evaluation.suites.reading import read_suite


@pytest.fixture
def written(eyes, colours, tmp_path):
    """A folder of an evaluation, and what was found."""
    options = MeasureOptions(
        side=16,
        extractors=(ExtractorSpec("lite0"),),
        clip=ExtractorSpec("clip"),
        reference=colours / "real",
        root=tmp_path / "cache",
    )
    found = evaluate(colours / "real", read_suite(colours / "suite.txt"), tmp_path / "e", options)
    return tmp_path / "e", found


def test_what_was_written_is_read_again(written):
    folder, found = written
    results, scores = read_results(folder)
    assert results.numbers == found.results.numbers and results.samples == found.results.samples
    assert scores.samples == found.scores.samples
    assert scores.columns.keys() == found.scores.columns.keys()
    for name, column in scores.columns.items():
        assert np.array_equal(column, found.scores.columns[name], equal_nan=True)
    text = (folder / "results.json").read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_labels_say_features_count_and_side():
    number = Number(metric="FID", value=1.0, count=5000, higher_is_better=False)
    assert number.label == "FID[N=5000]"
    facts = {"features": "lite0", "side": 256, "higher_is_better": False}
    number = number_of(Estimate(1.0, 5000, low=-np.inf, high=2.0, note="n"), "FID", **facts)
    assert number.label == "FID[lite0, N=5000, 256px]" and number.notes == ("n",)
    assert number.low is None and number.high == 2.0 and number.spread is None


def damaged(change):
    def damage(folder):
        path = folder / "results.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return damage


def put(key, value):
    return damaged(lambda data: data.__setitem__(key, value))


def option(key, value):
    return damaged(lambda data: data["options"].__setitem__(key, value))


def without_option(key):
    return damaged(lambda data: data["options"].pop(key))


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def scores(change):
    def damage(folder):
        import pyarrow.parquet as pq

        path = folder / "scores.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    return damage


def shard_elsewhere(folder):
    path = folder / "samples" / "manifest.json"
    data = json.loads(path.read_text())
    data["shards"][0]["file"] = "../scores.parquet"
    path.write_text(json.dumps(data))


DAMAGES = {
    "no results": lambda folder: (folder / "results.json").unlink(),
    "empty": write("results.json", b""),
    "no JSON": write("results.json", b"{"),
    "a list": write("results.json", b"[]"),
    "deep": write("results.json", b"[" * 100_000),
    "binary": write("results.json", bytes(range(256))),
    "huge": lambda folder: (folder / "results.json").open("wb").truncate(2**33),
    "no numbers": put("numbers", None),
    "numbers that are none": put("numbers", [{"metric": "FID"}]),
    "a value that is a text": damaged(lambda d: d["numbers"][0].__setitem__("value", "1")),
    "a value that is not finite": damaged(lambda d: d["numbers"][0].__setitem__("value", 1e999)),
    "options of another kind": put("options", []),
    "no scores": lambda folder: (folder / "scores.parquet").unlink(),
    "scores that are none": write("scores.parquet", b"PAR1"),
    "scores without rows": scores(lambda table: table.slice(0, 0)),
    "scores of fewer samples": scores(lambda table: table.slice(0, 5)),
    "scores without keys": scores(lambda table: table.drop(["key"])),
    "scores of words": scores(lambda t: t.append_column("words", [["a"] * 8])),
    "scores of other samples": scores(
        lambda t: t.set_column(0, "key", [[f"x{n}" for n in range(8)]])
    ),
    "no shard": lambda folder: (folder / "samples" / "00000.parquet").unlink(),
    "a shard that is none": write("samples/00000.parquet", b"PAR1"),
    "a shard elsewhere": shard_elsewhere,
    "no manifest": lambda folder: (folder / "samples" / "manifest.json").unlink(),
    "no prompts": lambda folder: (folder / "samples" / "prompts.jsonl").unlink(),
    "prompts that are none": write("samples/prompts.jsonl", b'{"id": 1}\n'),
}
IN_ORDER_TO_MEASURE = {
    "no extractors": without_option("extractors"),
    "extractors that are none": option("extractors", [["nobody", None]]),
    "extractors of another kind": option("extractors", 3),
    "a side of another kind": option("side", "x"),
    "a reference that is gone": option("reference", "/no/such/folder"),
    "a root that is none": option("root", "/dev/null/x"),
}


@pytest.fixture
def compared(written, tmp_path, capsys, monkeypatch):
    """Damage a copy and compare it; (exit code, stderr)."""
    folder, _ = written
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.delenv("CALOTYPE_DEBUG", raising=False)

    def compare(damage, *words):
        damage(tmp_path / "copy")
        page = tmp_path / "page.html"
        code = run(["compare", str(tmp_path / "copy"), str(folder), "-o", str(page), *words])
        assert page.exists() == (code == 0)
        return code, capsys.readouterr().err

    return compare


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_results_are_one_line(compared, damage):
    code, err = compared(DAMAGES[damage])
    assert code in (1, 2) and err.count("\n") == 1 and "defect" not in err, err


@pytest.mark.parametrize("damage", IN_ORDER_TO_MEASURE)
def test_options_that_cannot_be_measured_with_again(compared, damage):
    code, err = compared(IN_ORDER_TO_MEASURE[damage], "--recode", "png")
    assert code in (1, 2) and "defect" not in err, err
    assert err.splitlines()[-1].startswith("calotype: ")


def test_no_evaluation_at_all(tmp_path):
    with pytest.raises(UsageError, match="expected a folder of: calotype evaluate"):
        read_results(tmp_path)
