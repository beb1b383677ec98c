import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.config.data import DataConfig
from calotype.config.diffusion import DiffusionTraining
from calotype.config.network import DraftConfig, LevelConfig, UNetConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.tasks.factory import Tasks
from calotype.training.run import RunOptions, run_recipe

sys.path.insert(0, str(Path(__file__).parent))  # for what tests share with other processes

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 160, 0), "black": (0, 0, 0)}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Eight images of 16x16 with captions: four colours, left or right."""
    folder = tmp_path_factory.mktemp("images")
    for name, colour in COLOURS.items():
        for side, columns in (("left", slice(0, 8)), ("right", slice(8, 16))):
            pixels = np.full((16, 16, 3), 255, np.uint8)
            pixels[:, columns] = colour
            Image.fromarray(pixels).save(folder / f"{name}-{side}.png")
            (folder / f"{name}-{side}.txt").write_text(f"{name} {side}")
    return folder


def _micro(*, with_draft=False, **changes):
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
    return lambda **changes: Recipe(name="micro", stages=(_micro(**changes),))


@pytest.fixture
def train(images):
    """Run a recipe on the eight images; returns the exit code."""

    def run(recipe, out, *, data=images, **options):
        settings = {"quiet": True, "threads": 1, "dtype": "float32", "device": "cpu", **options}
        return run_recipe(recipe, data=data, out=out, options=RunOptions(**settings), tasks=Tasks())

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)
