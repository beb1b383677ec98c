"""Losses of stages that are told classes, or know pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Cascade, Stage
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.evaluation.level_losses import level_losses


def cascade(*, null_class=True, **network):
    torch.manual_seed(0)
    levels = (AdmLevel(channels=8, blocks=1),)
    config = StageConfig(
        resolution=8,
        network=AdmConfig(
            levels=levels, norm_groups=4, middle="none", learned_variance=True, **network
        ),
        schedule=DiscreteScheduleConfig(steps=20),
        parametrization="eps",
        null_class=null_class,
    )
    stage = Stage(config)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Cascade(None, [stage], name="made")


@pytest.fixture
def images(tmp_path):
    """Without captions and labels."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("network", [{"classes": 3}, {"extra_channels": 4}])
def test_the_stage_alone_decides(images, network):
    numbers = level_losses(cascade(**network), images, images=2)
    assert numbers[-1].metric == "bits per dimension"
    assert len(numbers) > 2 and {number.group for number in numbers} == {"stage 8"}
    assert all(0 < number.value < 1e4 for number in numbers)


def test_a_stage_that_never_samples_without_a_class_is_refused(images):
    with pytest.raises(UsageError, match="null class was not trained"):
        level_losses(cascade(classes=3, null_class=False), images, images=2)
