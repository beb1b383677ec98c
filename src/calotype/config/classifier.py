"""Classifiers of noisy images, whose gradient guides sampling, and how they are trained.

Reference: Dhariwal & Nichol 2021, section 4 and appendix H, arXiv:2105.05233.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.augmentation import ImageAugmentation
from calotype.config.network import Dropout
from calotype.config.ranges import OptionalWidth, Range, Resolution, Settings, Width, require
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Settings):
    """The half of an ADM network that goes down, and attention pooling to one number a class.

    Args:
        resolution: side of the images in pixels.
        levels: one record a resolution, finest first; each is half as fine as the one before. The
            last attends in the middle, whatever it says.
        classes: their names, sorted; () in a recipe = those of the data that are trained on.
        class_count: how many there are; 0 in a recipe = as many as the data have.
        schedule: noise schedule that it is trained on. Of a table the network is told the
            timestep, of the others the log-SNR.
        fold: side of the pixel squares folded into channels before the first level.
        head_dim: channels of one attention head.
        embed_dim: width of the noise level's embedding; 0 = four times the first level's channels.
        norm_groups: groups of every GroupNorm.
        dropout: within residual blocks.
    """

    resolution: Resolution
    levels: tuple[AdmLevel, ...]
    classes: tuple[str, ...] = ()
    class_count: Annotated[int, Range(0, 1_000_000)] = 0
    schedule: Literal["cosine", "linear"] | DiscreteScheduleConfig = "cosine"
    fold: Annotated[int, Range(1, 256)] = 1
    head_dim: Width = 64
    embed_dim: OptionalWidth = 0
    norm_groups: Width = 32
    dropout: Dropout = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        names, count = self.classes, self.class_count
        require(
            not names or count == len(names),
            f"got class_count={count} with {len(names)} classes; expected as many as are named",
        )
        require(
            count != 1,
            f"got the class {', '.join(names) or '(not named)'} alone; expected at least two: a "
            "classifier tells classes apart",
        )
        require(len(set(names)) == len(names), "got two classes of one name; expected different")
        divisor = self.fold * 2 ** (len(self.adm.levels) - 1)
        require(
            self.resolution % divisor == 0,
            f"got resolution {self.resolution}; expected a multiple of {divisor} (fold times the "
            "network's down-sampling)",
        )

    @property
    def adm(self) -> AdmConfig:
        """What the blocks are made of."""
        return AdmConfig(
            levels=self.levels,
            head_dim=self.head_dim,
            embed_dim=self.embed_dim,
            norm_groups=self.norm_groups,
            dropout=self.dropout,
        )


def _crops() -> ImageAugmentation:
    """Crops of four fifths of the side and more, mirrored or not, as in the published code."""
    return ImageAugmentation(smallest_crop=0.64, stretch=1.0, blur=0.0, colour=0.0, noise=0.0)


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(TrainConfig):
    """Training of a classifier of noisy images.

    Args:
        classifier: what is trained.
        augmentation: of the images, before they are noised. They are read larger than the
            classifier's resolution, so that the smallest crop need not be enlarged.
    """

    kind: Literal["classifier"] = "classifier"
    classifier: ClassifierConfig
    augmentation: ImageAugmentation = field(default_factory=_crops)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.data.labels is not None,
            "got data.labels=null for a classifier; expected where the class of an image stands: "
            '"folder", or the name of a column',
        )
        require(
            self.data.crop is None and not self.data.flip,
            "got data.crop or data.flip for a classifier; expected neither: see augmentation",
        )
        require(
            self.augmentation.noise == 0,
            "got augmentation.noise for a classifier; expected 0: its images are noised as the "
            "schedule says",
        )

    @property
    def resolution(self) -> int:
        """Of the classifier."""
        return self.classifier.resolution

    @property
    def read_resolution(self) -> int:
        """Side that images are read at: the smallest crop has the classifier's resolution."""
        return math.ceil(self.resolution / math.sqrt(self.augmentation.smallest_crop))

    def settled(self, recorded: TrainConfig) -> Self:
        """Itself with the recorded classes, where it names none."""
        names = recorded.classifier.classes if isinstance(recorded, ClassifierTraining) else ()
        return self if self.classifier.classes or not names else self.of_classes(names)

    def of_classes(self, names: tuple[str, ...]) -> Self:
        """Itself for classes of these names.

        Raises:
            ConfigError: it has room for another number.
        """
        count = self.classifier.class_count
        require(
            count in (0, len(names)),
            f"got {len(names)} classes, {', '.join(names):.200}, for a classifier of {count}; "
            f"expected as many: set classifier.class_count={len(names)}, or 0, or change the data",
        )
        classifier = replace(self.classifier, classes=names, class_count=len(names))
        return replace(self, classifier=classifier)
