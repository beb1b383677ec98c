"""Settings of low-rank adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.ranges import Range, Settings, require

Rank = Annotated[int, Range(1, 4096)]
Alpha = Annotated[float, Range(1e-6, 1e6)]
LORA_WEIGHTS = Range(-100, 100)  # of a LoRA in use
LORA_FORMAT = "calotype-lora-1"
LoraTarget = Literal["attention", "convolution", "linear"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Settings):
    """Train low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685) and nothing else.

    Args:
        rank: of the change of each weight matrix.
        alpha: the change is scaled by alpha / rank, so that the learning rate need not follow
            the rank.
        targets: layers that get one: "attention" (queries, keys, values, outputs, and the
            projections of the text), "convolution" (all of them), "linear" (all other linear
            layers: pooled text, draft, embeddings of the noise level in the blocks).
    """

    rank: Rank = 8
    alpha: Alpha = 8.0
    targets: tuple[LoraTarget, ...] = ("attention", "convolution")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.targets) > 0, "got no targets; expected some, e.g. ['attention']")


@dataclass(frozen=True, kw_only=True)
class LoraFacts(Settings):
    """What a LoRA file says of itself; see `calotype.cascade.lora`.

    Args:
        format: names the kind of file and its version.
        resolution: of the stage.
        rank: as trained; layers that are smaller have less.
        alpha: changes are scaled by alpha / rank.
        base: fingerprint of the weights it was trained on.
    """

    format: str = LORA_FORMAT
    resolution: Annotated[int, Range(1, 65536)]
    rank: Rank
    alpha: Alpha
    base: str
