"""Gradients of one step of CLIP; as a program `coupled_worker.py FOLDER`, for torchrun."""

import sys

import torch
from safetensors.torch import save_file

from calotype.conditioning import TextEmbedding
from calotype.config.augmentation import ImageAugmentation
from calotype.config.clip import (
    ClipConfig,
    ClipTraining,
    ImageTowerConfig,
    NoiseConfig,
    TextTowerConfig,
)
from calotype.config.optimizer import OptimizerConfig
from calotype.data.batch import Batch, BatchShare
from calotype.tasks.clip import ClipTask, new_clip
from calotype.training.distributed import open_group
from calotype.training.shards import full_tensor
from calotype.training.state import TrainState
from calotype.training.step import accumulate, local_numbers

ROWS = 16
CAPTIONS = tuple(f"thing {n % 13}" for n in range(ROWS))  # three are there twice
CONCEPTS = tuple(f"kind {n % 11}" for n in range(ROWS))


def config(loss="info_nce", parts=1):
    tower = {"width": 16, "layers": 2, "heads": 2}
    return ClipTraining(
        clip=ClipConfig(
            image=ImageTowerConfig(resolution=16, patch=4, **tower),
            text=TextTowerConfig(states=8, context=6, **tower),
            embed_dim=12,
            loss=loss,
            # One of the losses on noisy images: each part is noised alike in both passes.
            noise=NoiseConfig() if loss == "siglip" else None,
        ),
        batch_size=ROWS,
        patch_dropout=0.25,
        text_noise=0.1,
        augmentation=ImageAugmentation(),
        optimizer=OptimizerConfig(accumulation=parts),
    )


def look_up(captions):
    numbers = [sum(map(ord, caption)) for caption in captions]
    tokens = torch.stack([torch.randn(6, 8, generator=torch.manual_seed(n)) for n in numbers])
    return TextEmbedding(tokens.double(), torch.ones(len(captions), 6, dtype=torch.bool))


def batch(rank=0, processes=1, total=ROWS):
    x = torch.rand(ROWS, 3, 16, 16, generator=torch.manual_seed(5)) * 2 - 1
    rows = tuple(range(rank, ROWS, processes))
    if processes == 1:
        rows = rows[:total]
    return Batch(
        x[list(rows)].double(),
        None,
        tuple(CAPTIONS[row] for row in rows),
        tuple(str(row) for row in rows),
        0,
        share=BatchShare(rows, total) if processes > 1 else None,
        concepts=tuple(CONCEPTS[row] for row in rows),
    )


def gradients(group, *, parts=1, sharded=False, loss="info_nce", total=ROWS):
    """Losses of this process's rows, and the gradients of all."""
    settings = config(loss, parts)
    model = new_clip(settings, device="cpu").double()
    task = ClipTask(settings, model, look_up, "", torch.float64)
    state = TrainState(task, group, sharded=sharded)
    own = batch(group.rank, group.world_size, total)
    drawn = state.task.random_numbers(own, 0)
    losses = accumulate(state, own, state.task.inputs(own, local_numbers(drawn, own)))
    found = {name: full_tensor(p.grad).clone() for name, p in model.named_parameters()}
    return losses, found


CASES = [
    {"loss": loss, "sharded": sharded, "parts": parts, "total": total}
    for loss in ("info_nce", "siglip")
    for sharded in (False, True)
    for parts, total in ((1, ROWS), (4, ROWS), (3, 13))
]


def main(folder):
    with open_group() as group:
        for number, case in enumerate(CASES):
            _, found = gradients(group, **case)
            if group.is_rank_zero:
                save_file(found, f"{folder}/{number}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
