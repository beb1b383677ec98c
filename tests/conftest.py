"""One thread a test process, since processes share the cores; and the same numbers every time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from calotype.cascade import Cascade, Stage

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
