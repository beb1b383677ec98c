"""The canvas's own lesson: it learns the mean picture of a caption, and only where it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding
from calotype.config import CanvasConfig, LevelConfig, StageConfig, TrainConfig, UNetConfig
from calotype.data.example import Caption, Example
from calotype.data.source import SourceReport
from calotype.training.canvas import CanvasReader, freeze_canvas, teach_canvas, text_conditioner

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}
WIDTH = 8


class Colours:
    """Plain pictures, each named by its colour."""

    report = SourceReport()
    fingerprint = "colours"

    def __len__(self) -> int:
        return len(COLOURS)

    def key(self, index: int) -> str:
        return list(COLOURS)[index]

    def __getitem__(self, index: int) -> Example:
        name = self.key(index)
        image = np.full((16, 16, 4), 255, np.uint8)
        image[..., :3] = COLOURS[name]
        return Example(name, image, (Caption(name),))


def embed(captions: list[str] | tuple[str, ...]) -> TextEmbedding:
    rows = []
    for caption in captions:
        generator = torch.Generator().manual_seed(list(COLOURS).index(caption))
        rows.append(torch.randn(1, WIDTH, generator=generator))
    return TextEmbedding(torch.stack(rows), torch.ones(len(rows), 1, dtype=torch.bool))


def config(**canvas: object) -> TrainConfig:
    network = UNetConfig(
        levels=(
            LevelConfig(channels=8, blocks=1, canvas_channels=12),
            LevelConfig(channels=8, blocks=1),
        ),
        text_dim=WIDTH,
        fold=2,
        head_dim=8,
        text_pooling="whitened_mean",
        canvas_hidden=32,
        canvas_resolution=16,
    )
    settings = {"images": 6400, "batch_size": 16, "learning_rate": 3e-3, **canvas}
    return TrainConfig(
        stage=StageConfig(resolution=16, network=network),
        canvas=CanvasConfig(**settings),  # type: ignore[arg-type]
    )


def taught(train: TrainConfig) -> tuple[Stage, float, list[int]]:
    torch.manual_seed(0)
    stage, seen = Stage(train.stage), []
    error = teach_canvas(
        stage, Colours(), embed, config=train, progress=lambda done, _: seen.append(done)
    )
    return stage, error, seen


def test_learns_the_mean_picture_of_each_caption() -> None:
    train = config()
    _, error, seen = taught(train)
    assert seen[-1] == 6400
    # Guessing the mean of all pictures would leave an error of about 0.7.
    assert error < 0.01


def test_is_a_function_of_the_seed() -> None:
    train = config(images=160)
    first, second = taught(train)[0].state_dict(), taught(train)[0].state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_moves_nothing_but_the_canvas() -> None:
    train = config(images=160)
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in Stage(train.stage).state_dict().items()}
    after = taught(train)[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".text.canvas." in name for name in changed)


def test_a_frozen_canvas_gets_no_gradients() -> None:
    train = config(images=160)
    stage = Stage(train.stage)
    freeze_canvas(stage, train.canvas)
    text = text_conditioner(stage)
    assert text is not None and text.canvas is not None
    assert not any(weight.requires_grad for weight in text.canvas.parameters())
    free = Stage(train.stage)
    freeze_canvas(free, CanvasConfig(rate_share=0.5))
    assert all(weight.requires_grad for weight in free.parameters())


def test_reader_sums_levels_at_the_resolution_of_the_picture() -> None:
    reader = CanvasReader(((4, 8), None, (4, 4)), resolution=16)
    maps = (torch.randn(2, 4, 8, 8), None, torch.randn(2, 4, 4, 4))
    drawn = reader(maps)
    assert drawn.shape == (2, 3, 16, 16)
    alone = reader((maps[0], None, None))
    assert not torch.equal(drawn, alone)


@pytest.mark.parametrize("canvas", [None, CanvasConfig(images=16)])
def test_networks_without_canvas_are_left_alone(canvas: CanvasConfig | None) -> None:
    network = UNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=0)
    train = TrainConfig(stage=StageConfig(resolution=16, network=network), canvas=canvas)
    stage = Stage(train.stage)
    error = teach_canvas(stage, Colours(), embed, config=train, progress=lambda *_: None)
    assert math.isnan(error)
