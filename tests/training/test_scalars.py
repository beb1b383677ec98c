import dataclasses
import json
import os
import sys
import types

import pytest
from PIL import Image

from calotype.config.typed_json import override
from calotype.errors import ConfigError, MissingExtra
from calotype.training.recipes import load_recipe
from calotype.training.run_folder import record_recipe, recorded_recipe
from calotype.training.scalars import Scalars, Tracker, open_trackers

LINE = {
    "images": 8,
    "stage": 16,
    "loss": 0.5,
    "note": "text",
    "loss_by_level": {"<0.1": 0.25},
    "images_by_level": {"<0.1": 4},
}
NUMBERS = {"loss": 0.5, "loss_by_level/<0.1": 0.25}


class _FakeRun:
    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def _fake(monkeypatch, name, *, fail=None):
    """Put a package of that name in place; `package.inits` are the calls of `init`."""
    package = types.ModuleType(name)
    package.inits, package.run = [], _FakeRun()

    def init(**settings):
        package.inits.append(settings)
        if fail is not None and settings.get("mode") != "offline":
            raise fail
        return package.run

    package.init = init
    package.Settings = dict
    package.Image = lambda path: ("image", path)
    monkeypatch.setitem(sys.modules, name, package)
    return package


@pytest.fixture
def recipe():
    """Make a recipe whose stages name these trackers."""

    def make(*trackers):
        tiny = load_recipe("tiny")
        stages = tuple(dataclasses.replace(stage, trackers=trackers) for stage in tiny.stages)
        return dataclasses.replace(tiny, stages=stages)

    return make


@pytest.fixture
def opened(recipe, tmp_path):
    """Open trackers on a run folder; returns them and what was said."""

    def open_(*trackers, images=0):
        said = []
        scalars = open_trackers(recipe(*trackers), tmp_path, images=images, say=said.append)
        return scalars, said

    return open_


def test_wandb_gets_numbers_over_images(monkeypatch, opened, tmp_path):
    package = _fake(monkeypatch, "wandb")
    scalars, said = opened("wandb")
    path = tmp_path / "8.png"
    scalars.add(LINE, 8)
    scalars.add({"grid": path}, 8)
    scalars.close()
    assert said == [] and len(package.inits) == 1
    settings = package.inits[0]
    assert settings["dir"] == str(tmp_path) and settings["resume"] == "allow"
    assert settings["config"]["name"] == "tiny" and "mode" not in settings
    logged = [args[0] for name, args, _ in package.run.calls if name == "log"]
    assert logged == [{**NUMBERS, "images": 8}, {"grid": ("image", str(path)), "images": 8}]
    metrics = [(a, k) for name, a, k in package.run.calls if name == "define_metric"]
    assert metrics == [(("images",), {}), (("*",), {"step_metric": "images"})]
    assert package.run.calls[-1][0] == "finish"


def test_trackio_gets_numbers_over_images(monkeypatch, opened):
    package = _fake(monkeypatch, "trackio")
    scalars, said = opened("trackio")
    scalars.add(LINE, 8)
    scalars.close()
    assert said == []
    assert package.run.calls == [("log", (NUMBERS,), {"step": 8}), ("finish", (), {})]


@pytest.mark.parametrize(("name", "key"), [("wandb", "id"), ("trackio", "name")])
def test_a_resumed_run_goes_on_in_the_same_tracked_run(monkeypatch, opened, tmp_path, name, key):
    package = _fake(monkeypatch, name)
    for _ in range(2):
        opened(name)[0].close()
    assert package.inits[0][key] == package.inits[1][key]
    assert json.loads((tmp_path / "trackers.json").read_text())[name] in package.inits[0][key]
    (tmp_path / "trackers.json").write_text("[]")  # a file that is none of ours
    opened(name)[0].close()
    assert package.inits[2][key] != package.inits[0][key]


def test_without_a_network_wandb_stays_offline(monkeypatch, opened):
    package = _fake(monkeypatch, "wandb", fail=TimeoutError("no network"))
    scalars, said = opened("wandb")
    scalars.add(LINE, 8)
    assert said == [] and [s.get("mode") for s in package.inits] == [None, "offline"]
    assert package.run.calls[-1][0] == "log"


def test_a_tracker_that_does_not_open_is_left_out(monkeypatch, opened):
    _fake(monkeypatch, "trackio", fail=OSError("no\nspace"))
    scalars, said = opened("trackio", "tensorboard")
    scalars.add(LINE, 8)
    scalars.close()
    assert len(said) == 1 and said[0].startswith("trackio does not work (no space)")
    assert list(scalars.trackers) == ["tensorboard"]


def test_a_package_that_is_missing_is_one_line(monkeypatch, opened, tmp_path):
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)  # how Python marks what cannot be imported
        with pytest.raises(MissingExtra, match=name) as caught:
            opened("tensorboard", name)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_tensorboard_training_goes_on(monkeypatch, opened):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    scalars, said = opened("tensorboard")
    assert scalars.trackers == {} and len(said) == 1 and "calotype[train]" in said[0]
    scalars.add(LINE, 8)
    scalars.close()


def test_a_failing_tracker_is_told_of_once_and_tried_again():
    now, failing, added, said = [0.0], [True], [], []

    def log(values, images):
        if failing[0]:
            raise ConnectionError("network down")
        added.append(images)

    def close():
        raise ConnectionError("network down")

    scalars = Scalars(said.append, {"sick": Tracker(log, close)}, clock=lambda: now[0])
    scalars.add(LINE, 1)
    failing[0] = False
    scalars.add(LINE, 2)  # rests
    now[0] = 61.0
    scalars.add(LINE, 3)
    failing[0] = True
    scalars.add(LINE, 4)
    scalars.close()
    assert added == [3]
    assert len(said) == 1 and "network down" in said[0] and "\n" not in said[0]


def test_ctrl_c_is_no_failure_of_a_tracker():
    def log(values, images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scalars(print, {"x": Tracker(log, print)}).add(LINE, 1)


def test_tensorboard_holds_what_was_added(opened, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (4, 4)).save(tmp_path / "8.png")
    scalars, _ = opened("tensorboard")
    scalars.add(LINE, 8)
    scalars.add({"grid": tmp_path / "8.png"}, 8)
    scalars.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(NUMBERS)
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(8, 0.5)]
    assert events.Images("grid")[0].width == 4


def test_wandb_offline(monkeypatch, opened, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    Image.new("RGB", (4, 4)).save(tmp_path / "8.png")
    for images in (8, 16):
        scalars, said = opened("wandb", images=images)
        scalars.add(LINE, images)
        scalars.add({"grid": tmp_path / "8.png"}, images)
        scalars.close()
        assert said == []
    name = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{name}"))) >= 1


def test_trackio_on_this_machine(monkeypatch, opened, tmp_path):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("trackio")
    scalars, said = opened("trackio")
    scalars.add(LINE, 8)
    scalars.close()
    assert said == [] and any(files for _, _, files in os.walk(tmp_path / "trackio"))


def test_a_recipe_names_known_trackers():
    stage = load_recipe("tiny").stages[0]
    assert override(stage, ['trackers=["wandb"]']).trackers == ("wandb",)
    assert override(stage, ["trackers=[]"]).trackers == ()
    with pytest.raises(ConfigError, match="tensorboard"):
        override(stage, ['trackers=["mlflow"]'])


def test_a_resumed_run_may_name_others(recipe, tmp_path):
    record_recipe(tmp_path, recipe("tensorboard"), init=None)
    other = recipe("wandb")
    assert recorded_recipe(tmp_path, other, images=None) == other
