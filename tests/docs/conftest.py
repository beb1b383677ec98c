"""What the commands in the pages work on: drawings, a trained run, a stand-in for the default."""

import dataclasses
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image, ImageDraw

from calotype.cascade import Stage, find, save_cascade
from calotype.config.network import DraftConfig, EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.tasks.factory import Tasks
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe

SHAPES = {
    "circle": lambda draw, colour: draw.ellipse((8, 8, 56, 56), fill=colour),
    "square": lambda draw, colour: draw.rectangle((12, 12, 52, 52), fill=colour),
    "triangle": lambda draw, colour: draw.polygon([(32, 8), (56, 56), (8, 56)], fill=colour),
}


def draw_images(folder):
    """Nine captioned drawings."""
    folder.mkdir()
    for shape, draw in SHAPES.items():
        for colour in ("red", "green", "blue"):
            image = Image.new("RGBA", (64, 64))
            draw(ImageDraw.Draw(image), colour)
            image.save(folder / f"{colour}-{shape}.png")
            (folder / f"{colour}-{shape}.txt").write_text(f"a {colour} {shape}\n")


def _levels(*channels):
    return tuple(LevelConfig(channels=count, blocks=1) for count in channels)


def _stages():
    """Random networks as small as can be, with the resolutions of the embedded cascade."""
    sampling = SamplingConfig(steps=2, sampler="dpmpp_2m", grid="karras", threshold_percentile=None)
    base = UNetConfig(
        levels=_levels(8, 16),
        text_dim=16,
        fold=4,
        head_dim=8,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=8, rank=4, resolution=64),
    )
    yield StageConfig(
        resolution=64,
        network=base,
        parametrization="v",
        data_std=0.6,
        sampling=dataclasses.replace(sampling, start="draft", sigma_max=1.0),
    )
    for resolution in (256, 1024):
        yield StageConfig(
            resolution=resolution,
            lowres_resolution=resolution // 4,
            network=EfficientUNetConfig(levels=_levels(8), text_dim=16, fold=8, head_dim=8),
            parametrization="v",
            residual=True,
            data_std=0.1,
            sampling=dataclasses.replace(sampling, steps=1, aug_level=0.05, sigma_max=2.0),
        )


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """A folder that looks like the package's, with a small random cascade as the default."""
    torch.manual_seed(0)
    package = tmp_path_factory.mktemp("package")
    (package / "assets").mkdir()
    stages = [Stage(config) for config in _stages()]
    save_cascade(package / "assets" / "default", stages=stages, text_encoder="bytes:16", name="x")
    return package


@pytest.fixture(scope="session")
def served(stand_in, tmp_path_factory):
    """The address of `calotype serve` with the stand-in as its model."""
    model, data = stand_in / "assets" / "default", tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "calotype", "serve", "--port", "0", "--data", str(data)]
    with open(data.parent / "served.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--model", f"default={model}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("serving on "), (data.parent / "served.log").read_text()
        yield line.removeprefix("serving on ").strip()
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with the drawings and a short run of the recipe `tiny` on them."""
    folder = tmp_path_factory.mktemp("trained")
    draw_images(folder / "images")
    recipe = load_recipe("tiny")
    quick = tuple(
        dataclasses.replace(stage, grid_images=0, validation_images=0, batch_size=4)
        for stage in recipe.stages
    )
    recipe = dataclasses.replace(recipe, stages=quick)
    options = RunOptions(images=8, quiet=True, dtype="float32")
    where = {"data": folder / "images", "out": folder / "run"}
    assert run_recipe(recipe, **where, options=options, tasks=Tasks()) == 0
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current folder with the drawings, and a user's folders of its own."""
    place = tmp_path / "work"
    place.mkdir()
    draw_images(place / "images")
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return place


@pytest.fixture
def prepared(workplace, trained, stand_in, monkeypatch):
    """The same with a trained run, and the stand-in as the default cascade."""
    shutil.copytree(trained / "run", workplace / "run", symlinks=True)
    monkeypatch.setattr(find, "__file__", str(stand_in / "cascade" / "find.py"))
    return workplace
