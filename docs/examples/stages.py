"""Sample four captions and show all stages: the sheet of the README.

    python docs/examples/stages.py docs/images/stages.png [--model FOLDER]

A row a caption: the draft, then 64², 256² and 1024², all shown 256 pixels wide; seed 0.
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from torch.nn import functional as F

import calotype
from calotype.conditioning import Conditioning

CAPTIONS = (
    "a slice of pizza, glossy gradient style",
    "an owl, flat fluent style",
    "a police car, flat twemoji style",
    "a rocket, noto style",
)
SIDE = 256


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output")
    parser.add_argument("--model")
    options = parser.parse_args()
    cascade = calotype.load(options.model)
    encoder, base = cascade.text_encoder, cascade.stages[0]
    assert encoder is not None
    with torch.no_grad():
        draft = base.with_draft(Conditioning(encoder(CAPTIONS))).draft
    assert draft is not None
    sampled = cascade.sample(CAPTIONS, seeds=[0] * len(CAPTIONS))
    columns = [draft.clamp(-1, 1), *sampled.images]
    shown = [F.interpolate(x, (SIDE, SIDE), mode="nearest") for x in columns[:2]]
    shown += [F.interpolate(x, (SIDE, SIDE), mode="area") for x in columns[2:]]
    sheet = torch.cat([torch.cat(list(x), 1) for x in shown], 2)
    pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
