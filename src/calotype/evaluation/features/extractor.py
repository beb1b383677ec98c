"""What an extractor of features is, and where each comes from by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from calotype.errors import UsageError

NAMES = ("lite0", "inception", "clip", "clip-cmmd", "dinov2")
"""What `load_extractor` takes; a CLIP of other towers than L/14-336 calls itself by them."""

COLOURS = "colours"
"""Mean colours, which are no features to compare sets by, and kept as those are."""


class Extractor(Protocol):
    """Maps images to features."""

    @property
    def name(self) -> str:
        """Said beside every number: "lite0", "inception", "clip", "clip-b-32", "dinov2"."""

    @property
    def description(self) -> str:
        """One line for pages of results: the network, and how it resizes."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the weights and the version of the resize."""

    @property
    def dimension(self) -> int:
        """D, of a feature."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images, uint8 (N, 3, H, W) of any one size, to (N, D), float32, on the CPU.

        The work is cut into batches; a feature depends on its own image alone, to rounding.
        """


@runtime_checkable
class Classifier(Extractor, Protocol):
    """An extractor whose features have class scores: for the Inception Score."""

    def logits(self, features: Tensor) -> Tensor:
        """Of features (N, D), also such as were stored, to (N, classes), float32, on the CPU."""


@runtime_checkable
class CaptionExtractor(Extractor, Protocol):
    """An extractor that embeds captions in the space of images: for CLIP score, R-precision."""

    @property
    def captions_fingerprint(self) -> str:
        """SHA-256 (hex) over the weights of both towers and what stands before the text tower."""

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors, (N, D), float32, on the CPU."""


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor by name, small enough to be sent to whoever works.

    Args:
        name: one of `NAMES`.
        weights: as `load_extractor` takes them.
        device: where it runs.
    """

    name: str
    weights: Path | None = None
    device: str = "cpu"

    def load(self) -> Extractor:
        """The extractor; a process that is asked for the same again has kept it."""
        return _kept(self)


def load_extractor(
    name: str, *, weights: Path | None = None, device: str | torch.device = "cpu"
) -> Extractor:
    """Read an extractor.

    Args:
        name: "lite0"; "inception", the reference of FID; "clip"; "clip-cmmd": the same with CMMD's
            resize; "dinov2".
        weights: the reference file for "inception", a folder of transformers for "dinov2" and
            "clip"; for "clip" also one of ours, None = the embedded one. "lite0" has its own.
        device: where it runs.

    Raises:
        UsageError: no such name, or weights that do not belong to it.
        MissingExtra: a package is not installed.
        CalotypeError: the weights are damaged.
    """
    # Imported where needed: each brings packages of its own.
    if name == COLOURS:
        from calotype.evaluation.features.colours import MeanColour

        return MeanColour()
    if name == "lite0":
        from calotype.evaluation.features.lite0 import Lite0

        if weights is not None:
            raise UsageError(f"got weights {str(weights)!r:.200} for lite0, which has its own")
        return Lite0(device)
    if name in ("clip", "clip-cmmd"):
        from calotype.evaluation.features.clip import load_clip_features

        return load_clip_features(weights, squashed=name == "clip-cmmd", device=device)
    if name not in NAMES:
        raise UsageError(f"got the extractor {name!r:.80}; expected one of {', '.join(NAMES)}")
    what = "the reference weights, a file" if name == "inception" else "a folder of transformers"
    if weights is None:
        raise UsageError(f"got no weights for {name}; expected {what}: {name}=PATH")
    if name == "inception":
        from calotype.evaluation.features.inception import InceptionV3

        return InceptionV3(weights, device)
    from calotype.evaluation.features.dinov2 import DinoV2

    return DinoV2(weights, device)


@lru_cache(maxsize=8)
def _kept(spec: ExtractorSpec) -> Extractor:
    return load_extractor(spec.name, weights=spec.weights, device=spec.device)
