"""What features cost beside the extractor's convolutions; `python benchmarks/features.py`.

`feature_ratios(extractor, rounds)` is it for other scripts. See README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from kernels import recorded
from PIL import Image
from torch import Tensor

from calotype.evaluation.features.batches import images_at_once
from calotype.evaluation.features.extractor import NAMES, Extractor, load_extractor
from calotype.evaluation.features.store import ImageChunk, compute_chunk

COUNT, SIDE = 64, 256
NETWORK_SIDES = {"lite0": 224, "inception": 299, "dinov2": 224}


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    extractor = load_extractor(options.extractor, weights=options.weights)
    ratios = feature_ratios(extractor, options.rounds)
    print(
        f"features of {COUNT} PNG of {SIDE}² by {extractor.name} against its convolutions alone: "
        f"{statistics.median(ratios):.3f} times ({min(ratios):.3f} to {max(ratios):.3f})"
    )


def feature_ratios(extractor: Extractor, rounds: int, *, count: int = COUNT) -> list[float]:
    """Processor time of features from encoded images to the file, over that of the convolutions.

    They are those of the network at its own size, so that nothing of the resize is among them, and
    carried out on made-up numbers with nothing in between; both in turns.
    """
    chunk, alone = _chunk(count), convolutions(extractor, count)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            compute_chunk(chunk, extractor, Path(folder))

    whole(), alone()  # kernels are chosen and buffers made
    return [_seconds(whole) / _seconds(alone) for _ in range(rounds)]


def convolutions(extractor: Extractor, count: int) -> Callable[[], None]:
    """The convolutions of the features of `count` images, to be carried out alone."""
    at_once = min(count, images_at_once(extractor.device))
    side = NETWORK_SIDES.get(extractor.name, SIDE)
    images = torch.zeros(at_once, 3, side, side, dtype=torch.uint8)
    with recorded() as recording:
        extractor(images)

    def alone() -> None:
        with torch.no_grad():
            for _ in range(count // at_once):
                for index in recording.order:
                    recording.distinct[index]()

    return alone


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _chunk(count: int) -> ImageChunk:
    files = [_png(number) for number in range(count)]
    hashes = [hashlib.sha256(file).hexdigest() for file in files]
    return ImageChunk(
        names=[str(n) for n in range(count)], hashes=hashes, side=None, load=partial(_load, files)
    )


def _png(number: int) -> bytes:
    """Soft colours, which PNG compresses about as well as a photograph."""
    colours = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def _load(files: Sequence[bytes], rows: range) -> Tensor:
    images = [np.asarray(Image.open(io.BytesIO(files[row]))) for row in rows]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extractor", choices=NAMES, default="lite0")
    parser.add_argument("--weights", type=Path, help="as the extractor takes them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
