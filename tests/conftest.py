"""One thread a test process, since processes share the cores; and the same numbers every time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from calotype.cascade import Cascade, Stage

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What is left of Ray Serve when its cluster ended calls Ray from a thread of its own, which would
# start another cluster while the next test starts its own: "Perhaps you called ray.init twice".
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    """Tests that draw from torch's global generator see the same draws in any order."""
    import torch

    torch.manual_seed(20221)


def _tiny_stage(resolution: int, lowres: int | None) -> Stage:
    from calotype.cascade import Stage
    from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
    from calotype.config.sampling import SamplingConfig
    from calotype.config.stage import StageConfig

    kind = UNetConfig if lowres is None else EfficientUNetConfig
    levels = (
        LevelConfig(channels=8, blocks=1),
        LevelConfig(channels=8, blocks=1, self_attention=lowres is None),
    )
    return Stage(
        StageConfig(
            resolution=resolution,
            lowres_resolution=lowres,
            network=kind(levels=levels, text_dim=16, head_dim=8),
            parametrization="v",
            residual=lowres is not None,
            data_std=0.6 if lowres is None else 0.2,
            sampling=SamplingConfig(steps=2, sampler="dpmpp_2m", threshold_percentile=None),
        )
    )


@pytest.fixture(scope="session")
def cascade() -> Cascade:
    """8 -> 16 -> 32 with random weights; some rooms have a cascade of their own."""
    import torch

    from calotype.cascade import Cascade

    torch.manual_seed(0)
    stages = [_tiny_stage(8, None), _tiny_stage(16, 8), _tiny_stage(32, 16)]
    return Cascade("bytes:16", stages, name="tiny bars")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The tiny recipe's three stages with random weights, saved as a cascade folder."""
    import torch

    from calotype.cascade import Stage, save_cascade
    from calotype.training.recipes import load_recipe

    recipe = load_recipe("tiny")
    stages = []
    for index, config in enumerate(recipe.stages):
        torch.manual_seed(index)
        stage = Stage(config.stage)
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        stages.append(stage)
    folder = tmp_path_factory.mktemp("models") / "small"
    save_cascade(folder, stages=stages, text_encoder="bytes:16", name="small")
    return folder


@pytest.fixture
def command(capsys, tmp_path, monkeypatch, model):
    """Run a command in an empty folder; returns (exit code, stdout, stderr)."""
    from calotype.cli import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.delenv("CALOTYPE_DEBUG", raising=False)

    def call(*arguments):
        words = list(arguments)
        if words and words[0] in ("sample", "upscale", "edit") and "--model" not in words:
            words += ["--model", str(model), "--dtype", "float32"]
        code = run(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 160, 0), "black": (0, 0, 0)}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Eight images of 16x16 with captions: four colours, left or right."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    for name, colour in COLOURS.items():
        for side, columns in (("left", slice(0, 8)), ("right", slice(8, 16))):
            pixels = np.full((16, 16, 3), 255, np.uint8)
            pixels[:, columns] = colour
            Image.fromarray(pixels).save(folder / f"{name}-{side}.png")
            (folder / f"{name}-{side}.txt").write_text(f"{name} {side}")
    return folder


def _micro(*, with_draft=False, **changes):
    import dataclasses

    from calotype.config.data import DataConfig
    from calotype.config.diffusion import DiffusionTraining
    from calotype.config.network import DraftConfig, LevelConfig, UNetConfig
    from calotype.config.optimizer import OptimizerConfig
    from calotype.config.sampling import SamplingConfig
    from calotype.config.stage import StageConfig

    network = UNetConfig(
        levels=(
            LevelConfig(channels=8, blocks=1),
            LevelConfig(channels=16, blocks=1, self_attention=True),
        ),
        text_dim=8,
        head_dim=8,
        dropout=0.1,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=16, rank=8, resolution=8) if with_draft else None,
    )
    sampling = SamplingConfig(steps=2, sampler="dpmpp_2m", threshold_percentile=None)
    stage = StageConfig(resolution=8, network=network, parametrization="v", sampling=sampling)
    optimizer = OptimizerConfig(learning_rate=2e-3, warmup_images=8, decay_from=0.5)
    config = DiffusionTraining(
        stage=stage,
        text_encoder="bytes:8",
        data=DataConfig(flip=not with_draft),
        optimizer=optimizer,
        batch_size=4,
        total_images=48,
        ema_halflife_images=16,
        checkpoint_images=16,
        grid_images=16,
        validation_images=16,
        grid_captions=("red left", ""),
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture
def micro():
    """Make a configuration that trains in a second: `micro(total_images=8)`."""
    return _micro


@pytest.fixture
def micro_recipe():
    """Make a recipe of one stage."""
    from calotype.config.recipe import Recipe

    return lambda **changes: Recipe(name="micro", stages=(_micro(**changes),))


@pytest.fixture
def train(images):
    """Run a recipe on the eight images; returns the exit code."""
    import torch

    from calotype.tasks.factory import Tasks
    from calotype.training.run import RunOptions, run_recipe

    def run(recipe, out, *, data=images, **options):
        settings = {"quiet": True, "threads": 1, "dtype": "float32", "device": "cpu", **options}
        return run_recipe(recipe, data=data, out=out, options=RunOptions(**settings), tasks=Tasks())

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")  # what is open keeps an event loop running, which others may need
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("npm is not there: apt-get install npm")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--prefix", str(folder)]
    done = subprocess.run([*command, "axe-core@4"], capture_output=True, text=True, timeout=120)
    source = folder / "node_modules/axe-core/axe.min.js"
    if not source.is_file():
        pytest.skip(f"npm has no axe-core here: {done.stderr[-200:]}")
    return source.read_text()


@pytest.fixture(scope="module")
def start_ray() -> Iterator[Callable[[int], Any]]:
    """Starts a local Ray of so many cores, which ends with the module; returns `ray`."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    def start(cores: int) -> Any:
        ray.shutdown()  # one that did not start to the end is in the way
        options = {"log_to_driver": False, "include_dashboard": False, "logging_level": "ERROR"}
        ray.init(address="local", num_cpus=cores, object_store_memory=100_000_000, **options)
        return ray

    try:
        yield start
    finally:
        ray.shutdown()
