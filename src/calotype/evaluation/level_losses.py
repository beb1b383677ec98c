"""The loss of every stage by noise level, on images that were not trained on.

It is training's own validation: mean squared error of the estimated image, with fixed noise, of
held-out images where the data set some apart; and, of stages with a table of timesteps, the
variational bound in bits per dimension.
"""

from __future__ import annotations

from pathlib import Path

from calotype.cascade import Cascade
from calotype.config.data import DataConfig
from calotype.config.stage import StageConfig
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import TrainingData
from calotype.diffusion import DiscreteSchedule
from calotype.errors import UsageError
from calotype.evaluation.results import Number
from calotype.tasks.validation import Probe, bits_per_dimension, errors_by_level, read_probe


def level_losses(
    cascade: Cascade, data: Path, *, images: int, grammar: CaptionGrammar | None = None
) -> list[Number]:
    """A number a stage and noise level, sigma/alpha, and the bound of stages that have one.

    Stages with classes are told of none, those that in-paint of no pixel: as in plain sampling.

    Args:
        cascade: ready to sample.
        data: as training takes them.
        images: at most.
        grammar: makes captions of rows that have none.

    Raises:
        UsageError: there are no usable images, or a stage was not trained without a class.
    """
    numbers = []
    for stage in cascade.stages:
        probe = _probe(stage.config, data, images, grammar)
        side, captioned = stage.config.resolution, stage.config.network.text_dim > 0
        encoder = cascade.text_encoder if captioned else None
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


def _probe(stage: StageConfig, path: Path, images: int, grammar: CaptionGrammar | None) -> Probe:
    """What a stage is judged on: the data says no classes here, and hides no pixels.

    Raises:
        UsageError: there are no usable images, or the stage was not trained without a class.
    """
    side, data = stage.resolution, DataConfig()
    if stage.class_count > 0 and not stage.null_class:
        raise UsageError(
            f"got losses of the {side} stage, whose null class was not trained (class_dropout=0); "
            "they are measured without classes: leave out --losses"
        )
    captioned = stage.network.text_dim > 0
    source = TrainingData(path, resolution=side, data=data, grammar=grammar, captioned=captioned)
    probe = read_probe(source.validation, stage, data, limit=images)
    if probe is None:
        raise UsageError(f"got no usable images of {side} pixels in {path} for losses")
    return probe
