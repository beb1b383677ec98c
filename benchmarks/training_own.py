"""This library's trainer as a worker of `training.py`; the protocol is in `training_peers.py`.

    python training_own.py TASK

The steps are the trainer's own (`calotype.training.step`), on a stage built as the trainer builds
it: fused AdamW with weight decay on matrices, averaged weights after every step, channels_last
and scaled-dot-product attention. There is no slower form, so `fast` changes nothing.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import torch
from training_peers import CLIP_NORM, LEARNING_RATE, TEXT_DROPOUT, Examples, Task, Trainer, serve

import calotype
from calotype.conditioning import TextEmbedding
from calotype.config.diffusion import DiffusionTraining
from calotype.config.network import LevelConfig, UNetConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.stage import StageConfig
from calotype.data.batch import Batch
from calotype.runtime import DTYPES
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.training.state import TrainState
from calotype.training.step import train_step


def recipe(task: Task) -> DiffusionTraining:
    """The task in this library's words."""
    levels = tuple(
        LevelConfig(channels=channels, blocks=task.blocks, self_attention=attends)
        for channels, attends in zip(task.channels, task.attention, strict=True)
    )
    network = UNetConfig(levels=levels, text_dim=task.text_dim, head_dim=task.head_dim)
    return DiffusionTraining(
        stage=StageConfig(resolution=task.resolution, network=network, parametrization="eps"),
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE, grad_clip_norm=CLIP_NORM),
        batch_size=task.batch,
        text_dropout=TEXT_DROPOUT,
    )


def build(task: Task) -> Trainer:
    config = recipe(task)
    mask = torch.ones(task.batch, task.tokens, dtype=torch.bool)
    batches, texts = [], {}
    for number, (images, tokens) in enumerate(Examples(task).batches):
        images = images.contiguous(memory_format=torch.channels_last)  # as batches are made
        captions = tuple(f"{number} {row}" for row in range(task.batch))
        texts[captions] = TextEmbedding(tokens=tokens, mask=mask)
        batches.append(Batch(images, None, captions, captions, 0))

    def text(captions: Sequence[str]) -> TextEmbedding:
        return texts[tuple(captions)]

    endless = itertools.cycle(batches)
    state = TrainState(
        DiffusionTask(config, new_stage(config, device="cpu", dtype=DTYPES[task.dtype]), text)
    )

    def step() -> float:
        metrics = train_step(state, next(endless))
        if metrics.skipped:
            raise SystemExit(f"got loss {metrics.loss}; expected a finite one")
        return metrics.loss

    parameters = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    return Trainer(step, parameters, calotype.__version__)


if __name__ == "__main__":
    serve(build, Task.from_json(sys.argv[1]))
