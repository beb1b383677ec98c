"""A tiny cascade with random weights: 8 -> 16 -> 32 pixels, captions as bytes."""

import pytest
import torch

from calotype.cascade import Cascade, Stage
from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig

LEVELS = (
    LevelConfig(channels=8, blocks=1),
    LevelConfig(channels=16, blocks=1, self_attention=True),
)


def base_config(text_dim=16, **changes):
    levels = LEVELS if text_dim else LEVELS[:1] * 2
    network = UNetConfig(levels=levels, text_dim=text_dim, head_dim=8)
    sampling = SamplingConfig(steps=4, sampler="dpmpp_2m", guidance_weight=2.0)
    settings = {"resolution": 8, "network": network, "parametrization": "v", "data_std": 0.6}
    return StageConfig(**{**settings, "sampling": sampling, **changes})


def enlarger_config(resolution, text_dim=16):
    levels = LEVELS if text_dim else LEVELS[:1]
    return StageConfig(
        resolution=resolution,
        lowres_resolution=resolution // 2,
        network=EfficientUNetConfig(levels=levels, text_dim=text_dim, head_dim=8),
        parametrization="v",
        residual=True,
        data_std=0.2,
        sampling=SamplingConfig(steps=2, sampler="ddpm", aug_level=0.1),
    )


def random_stage(config, seed=0):
    """A stage whose every weight is random: the last layers start at zero otherwise."""
    torch.manual_seed(seed)
    stage = Stage(config)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return stage.eval()


@pytest.fixture(scope="session")
def cascade():
    configs = (base_config(), enlarger_config(16), enlarger_config(32))
    return Cascade("bytes:16", [random_stage(c, i) for i, c in enumerate(configs)], name="small")


@pytest.fixture(scope="session")
def unconditional():
    configs = (base_config(0), enlarger_config(16, 0))
    return Cascade("none", [random_stage(c, i) for i, c in enumerate(configs)])
