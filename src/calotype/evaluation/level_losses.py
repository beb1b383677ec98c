"""The loss of every stage by noise level, on images that were not trained on.

It is training's own validation: mean squared error of the estimated image, with fixed noise, of
held-out images where the data set some apart; and, of stages with a table of timesteps, the
variational bound in bits per dimension.
"""

from __future__ import annotations

from pathlib import Path

from calotype.cascade import Cascade
from calotype.config.diffusion import DiffusionTraining
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import TrainingData
from calotype.diffusion import DiscreteSchedule
from calotype.errors import UsageError
from calotype.evaluation.results import Number
from calotype.tasks.validation import bits_per_dimension, errors_by_level, read_probe


def level_losses(
    cascade: Cascade, data: Path, *, images: int, grammar: CaptionGrammar | None = None
) -> list[Number]:
    """A number a stage and noise level, sigma/alpha, and the bound of stages that have one.

    Args:
        cascade: ready to sample.
        data: as training takes them.
        images: at most.
        grammar: makes captions of rows that have none.

    Raises:
        UsageError: there are no usable images.
    """
    numbers = []
    for stage in cascade.stages:
        side = stage.config.resolution
        config = DiffusionTraining(
            stage=stage.config,
            batch_size=1,
            text_encoder=cascade.text_encoder_spec,
            vlb_weight=0.0,  # nothing is trained
        )
        source = TrainingData(data, resolution=side, data=config.data, grammar=grammar).validation
        probe = read_probe(source, config, limit=images)
        if probe is None:
            raise UsageError(f"got no usable images of {side} pixels in {data} for losses")
        encoder = cascade.text_encoder
        errors = errors_by_level(stage, probe, encoder)
        found = {f"loss at sigma/alpha {ratio}": error for ratio, error in errors.items()}
        if isinstance(stage.schedule, DiscreteSchedule):
            bits = bits_per_dimension(stage, probe, encoder)
            found["bits per dimension"] = float(bits.mean())
        numbers += [
            Number(
                metric=metric,
                value=value,
                count=len(probe),
                side=side,
                higher_is_better=False,
                group=f"stage {side}",
            )
            for metric, value in found.items()
        ]
    return numbers
