"""What a stage is told of some images: their captions and classes, and what guidance leads from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from calotype.cascade.sampling import told_nothing
from calotype.conditioning import NULL_CLASS, Conditioning, Text
from calotype.config.class_names import check_class, listed
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import CascadeConfig, StageConfig
from calotype.diffusion import NoiseSource
from calotype.errors import UsageError

if TYPE_CHECKING:
    from calotype.cascade.plan import StagePlan
    from calotype.cascade.stage import Stage


class Told(NamedTuple):
    """What conditions a stage, without the image that it enlarges.

    Args:
        cond: captions and classes.
        away: null or negative captions and null classes; None = nothing to be guided away from.
        source: captions of what an edit inverts, and the classes.
    """

    cond: Conditioning
    away: Conditioning | None
    source: Conditioning

    def enlarging(
        self, stage: Stage, lowres: Tensor, how: StagePlan, noise: NoiseSource
    ) -> Conditioning:
        """The conditioning of a stage that enlarges images (B, 3, h, w)."""
        lowres, aug_level = lowres.to(stage.device), how.sampling.aug_level
        cond = stage.lowres_condition(
            lowres, self.cond.text, size=how.size, aug_level=aug_level, noise=noise
        )
        return replace(cond, classes=self.cond.classes)

    def uncond(self, cond: Conditioning, sampling: SamplingConfig) -> Conditioning | None:
        """The other half of guidance beside `cond`; None where there is none."""
        if sampling.guidance_weight == 1 or self.away is None:
            return None
        return replace(cond, text=self.away.text, classes=self.away.classes)


def told(
    config: StageConfig,
    texts: Sequence[Text | None],
    classes: Sequence[str | None] | None,
    device: torch.device,
) -> Told:
    """What a stage is told, on its device.

    Args:
        config: of the stage.
        texts: the captions, the negative or null ones, and those of what an edit inverts.
        classes: a name each, None = nobody said; None = nobody said of any.
        device: of the stage.
    """
    if config.network.text_dim == 0:
        texts = (None, None, None)
    text, negative, source = (None if one is None else one.to(device) for one in texts)
    numbers = _numbers(config, classes, device)
    cond, away = Conditioning(text, classes=numbers), None
    if negative is not None:
        away = replace(told_nothing(cond, config), text=negative)
    elif numbers is not None and config.null_class:
        away = told_nothing(cond, config)
    return Told(cond, away, Conditioning(source, classes=numbers))


def _numbers(
    config: StageConfig, classes: Sequence[str | None] | None, device: torch.device
) -> Tensor | None:
    """Numbers of classes, (B,) int64; None where the stage has none, or nobody says any."""
    if classes is None or config.class_count == 0:
        return None
    known = {name: number for number, name in enumerate(config.classes)}
    numbers = [NULL_CLASS if name is None else known[name] for name in classes]
    return torch.tensor(numbers, device=device)


def check_classes(
    given: Sequence[str | None] | None, configs: Sequence[StageConfig], *, count: int
) -> tuple[str | None, ...] | None:
    """The class of each image, checked; None where nobody says any.

    Args:
        given: names of classes; None in it, or in its place = nobody says.
        configs: of the stages that sample.
        count: of the images.

    Raises:
        UsageError: a class that nobody trained, or none where the stages need one.
    """
    if isinstance(given, str):
        raise UsageError(f"got one text as classes; expected a list: [{given!r:.80}]")
    if given is not None and len(given) != count:
        raise UsageError(f"got {len(given)} classes for {count} captions; expected as many")
    named = () if given is None else tuple(name for name in given if name is not None)
    stages = [config for config in configs if config.class_count > 0]
    if named and not stages:
        raise UsageError(
            f"got the class {named[0]!r:.80} for a model without classes; expected none, or a "
            "model that was trained with some"
        )
    for config in stages:
        for name in dict.fromkeys(named):
            check_class(name, config.classes, f"the {config.resolution} stage")
        if len(named) < count and not config.null_class:
            raise UsageError(
                f"got no class for the {config.resolution} stage, which samples with one alone "
                f"(class_dropout=0); expected one of its {config.class_count}: "
                f"{listed(config.classes)}"
            )
    return None if given is None or not named else tuple(given)


def refuse_captions(captions: Sequence[str], config: CascadeConfig) -> None:
    """Refuse captions for a cascade without text.

    Raises:
        UsageError: one is not empty.
    """
    if any(str(caption).strip() for caption in captions):
        what = ", and a class: classes=[NAME], --class NAME" if config.classes else ""
        raise UsageError(f"{config.name!r} takes no captions; expected none, or empty ones{what}")


def check_guidance(settings: SamplingConfig, config: StageConfig) -> None:
    """Refuse guidance away from a null class that was never trained.

    Raises:
        UsageError: the stage takes no text that could guide, either.
    """
    plain = config.class_count == 0 or config.network.text_dim > 0 or config.null_class
    if settings.guidance_weight != 1 and not plain:
        raise UsageError(
            f"got guidance {settings.guidance_weight:g} for the {config.resolution} stage, whose "
            "null class was not trained (class_dropout=0); expected 1"
        )
