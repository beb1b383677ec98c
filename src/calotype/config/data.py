"""How images become training examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.ranges import Fraction, Range, Resolution, Settings, require
from calotype.config.typed_json import Retired


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """How images become training examples.

    Args:
        caption_variants: captions per image to choose from, embedded once ahead.
        labels: what says which class an image is of: "folder" = the name of the folder it lies in;
            else a column of the table or a field of the metadata, such as style or group; None =
            images have no classes.
        styles: style phrases or set names to train on; None = all that the data has.
        fit: images that are not square: "crop" (centre) or "pad".
        small: images smaller than the stage: "enlarge" or "skip".
        crop: side of random crops in pixels of the stage's resolution; None = whole images.
        crops_per_image: crops cut from each decoded image.
        flip: mirror images at random.
        broken_fraction: fraction of broken images above which training refuses, in [0, 1].
        missing_captions: a caption that is not in the embedding store is computed or refused.
        cache_bytes: decoded images kept in memory up to this size.
    """

    caption_variants: Annotated[int, Range(1, 10_000)] = 16
    labels: str | None = None
    styles: tuple[str, ...] | None = None
    fit: Literal["crop", "pad"] = "crop"
    small: Literal["enlarge", "skip"] = "enlarge"
    crop: Resolution | None = None
    crops_per_image: Annotated[int, Range(1, 1024)] = 1
    flip: bool = False
    broken_fraction: Fraction = 0.2
    missing_captions: Literal["compute", "refuse"] = "compute"
    cache_bytes: Annotated[int, Range(0, 10**15)] = 2_500_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.labels != "",
            'got data.labels=""; expected "folder", the name of a column, or null',
        )

    RETIRED = (
        Retired("crops_per_picture", now="crops_per_image"),
        Retired("broken_share", now="broken_fraction"),
    )
