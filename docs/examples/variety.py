"""Sample six captions with six seeds at variety 0, 0.5 and 1: the sheet of docs/sampling.md.

    python docs/examples/variety.py docs/images/variety.png [--model FOLDER]

A row a caption, six seeds a block, the blocks from left to right at variety 0, 0.5 and 1.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from PIL import Image

import calotype

CAPTIONS = (
    "a red fox, 3d render style",
    "a slice of pizza, glossy gradient style",
    "a rocket, noto style",
    "an owl, flat fluent style",
    "a police car, flat twemoji style",
    "a cactus, glossy gradient style, on a light blue background",
)
VARIETIES = (0.0, 0.5, 1.0)
SEEDS = range(6)
GAP = 16


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output")
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int, default=12, help="of all three, so that they compare")
    options = parser.parse_args()
    cascade = calotype.load(options.model)
    base = cascade.stages[0].config
    blocks = []
    for variety in VARIETIES:
        sampling = replace(base.sampling, variety=variety, steps=options.steps)
        sampled = cascade.sample(
            [caption for caption in CAPTIONS for _ in SEEDS],
            seeds=[seed for _ in CAPTIONS for seed in SEEDS],
            stop_at=base.resolution,
            sampling={base.resolution: sampling},
        )
        rows = [torch.cat(list(row), 2) for row in sampled.images[0].split(len(SEEDS))]
        block = torch.cat(rows, 1)
        blocks += [block, torch.ones(3, block.shape[1], GAP)]
    sheet = ((torch.cat(blocks[:-1], 2) + 1) * 127.5).round().byte()
    image = Image.fromarray(sheet.permute(1, 2, 0).numpy())
    image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BOX).save(
        options.output
    )


if __name__ == "__main__":
    main()
