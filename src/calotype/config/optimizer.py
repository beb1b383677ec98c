"""How weights move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.ranges import Fraction, Images, LearningRate, Range, Settings, WeightDecay

Decay = Annotated[float, Range(0.0, 0.999999)]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """AdamW or Adafactor with warm-up, constant rate and decay; all lengths in images.

    Args:
        kind: which optimizer.
        learning_rate: peak rate.
        text_rate: rate of an ADM network's own text modules, as a fraction of the others'. A tower
            that begins at random learns from a small part of the loss, and at the rate of the
            U-Net noise drowns that.
        betas: decay of the moments.
        eps: added to the denominator.
        weight_decay: decoupled decay.
        warmup_images: linear warm-up.
        decay_from: fraction of the run after which the rate decays, in [0, 1]; 1 = never.
        final_rate: rate at the end as a fraction of the peak.
        grad_clip_norm: largest gradient norm; None = no clipping.
        accumulation: micro-batches per step.
    """

    kind: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: LearningRate = 1e-4
    text_rate: Annotated[float, Range(0.0, 10.0)] = 1.0
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    eps: Annotated[float, Range(1e-30, 1.0)] = 1e-8
    weight_decay: WeightDecay = 0.01
    warmup_images: Images = 10_000
    decay_from: Fraction = 1.0
    final_rate: Fraction = 0.01
    grad_clip_norm: Annotated[float, Range(1e-6, 1e6)] | None = 1.0
    accumulation: Annotated[int, Range(1, 100_000)] = 1
