import json
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from calotype.runtime import DTYPES
from calotype.storage.reading import file_sha256
from calotype.tasks.cost import peak_flops
from calotype.training.recipes import recipe_names


def facts(command, *arguments):
    code, out, err = command("info", *arguments, "--json")
    assert (code, err) == (0, ""), err
    return json.loads(out)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes(command, name):
    recipe = facts(command, name)
    assert isinstance(recipe["text_encoder"], str)
    assert len(recipe["stages"]) == (3 if name == "tiny" else 1)
    if name.startswith("clip"):
        assert recipe["stages"][0]["parameters"] > 1_000_000
        assert recipe["stages"][0]["image"]["resolution"] in (64, 224)
        return
    if name.startswith("classifier"):
        assert recipe["stages"][0]["parameters"] > 1_000_000
        assert recipe["stages"][0]["resolution"] in (64, 128, 256)
        return
    for stage in recipe["stages"]:
        assert stage["parameters"] > 1000
        assert {"resolution", "parametrization", "schedule"} <= set(stage)
        drafted = name in ("emoji-64", "inpaint-emoji-64")
        draft = {"width": 1024, "rank": 1152, "resolution": 64, "spread": True}
        assert stage["draft"] == (draft if drafted else None)


def test_a_cascade_folder(command, model):
    cascade = facts(command, str(model))
    tiny = facts(command, "tiny")
    counts = [stage["parameters"] for stage in cascade["stages"]]
    assert counts == [stage["parameters"] for stage in tiny["stages"]]
    assert cascade["stages"][0]["sha256"] == file_sha256(model / "8" / "weights.safetensors")
    (model / "README.md").write_text("# Card\nhonest limits")
    try:
        assert "honest limits" in command("info", str(model))[1]
        assert "card" not in facts(command, str(model))
    finally:
        (model / "README.md").unlink()


def test_an_image(command):
    command("sample", "a fox", "-o", "a.png", "--size", "8")
    recipe = facts(command, "a.png")
    assert (recipe["caption"], recipe["kind"]) == ("a fox", "sample")


def test_this_machine(command):
    machine = facts(command)
    assert machine["chosen"]["threads"] >= 1
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        names = tomllib.load(file)["project"]["optional-dependencies"].keys() - {"dev"}
    assert machine["extras"].keys() == names


def test_the_peak_is_told_once_it_was_measured(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("calotype.tasks.cost._measure_peak", lambda device, dtype: 1.25e11)
    machine = facts(command)
    assert machine["peak_gflops"] is None  # asking measures nothing
    chosen = machine["chosen"]
    peak_flops(chosen["device"], DTYPES[chosen["dtype"]])
    assert facts(command)["peak_gflops"] == 125.0


def test_nothing_of_the_kind(command, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for name in ("emoji-65", "no/such/folder", "a.txt", "a\0b", str(tmp_path)):
        code, out, err = command("info", name)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert ("did you mean 'emoji-64'?" in err) == (name == "emoji-65")
    assert import_module("calotype.cli.info").__doc__


def test_the_files_of_a_cascade_tell_of_it(command, model):
    whole = facts(command, str(model))
    assert facts(command, str(model / "cascade.json")) == whole
    code, _, err = command("info", str(model / "8" / "stage.json"))
    assert code == 2 and "one stage" in err


def test_recipes_that_hold_nothing_or_too_much(command, tmp_path):
    (tmp_path / "empty.json").write_text('{"name": "x", "stages": []}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, message in (("empty.json", "without stages"), ("deep.json", "too deeply")):
        code, out, err = command("info", name)
        assert (code, out, err.count("\n")) == (2, "", 1) and message in err, err
