"""What a batch of training tensors holds, and what decides it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from calotype.config.data import DataConfig
from calotype.errors import ConfigError


@dataclass(frozen=True)
class BatchShare:
    """One process's part of a batch that several processes share.

    Args:
        rows: which rows of the whole batch these are, rising; those from `total` on do not count.
        total: rows of the whole batch.
    """

    rows: tuple[int, ...]
    total: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples to train on.

    Args:
        x: (B, 3, H, W) float32 in [-1, 1], channels last in memory; crops when the recipe crops.
        lowres: (B, 3, h, w) the same by the box filter, in [-1, 1]; None for a base stage.
        captions: B texts; "" trains as unconditional.
        keys: B names of examples.
        position: of the first example of the global batch.
        weights: how much each example's loss counts, (B,); None = all 1.
        share: which part of a batch of several processes this is; None = all of it.
        first_captions: of each example, whichever of them was chosen; "" = it has none.
        concepts: what each shows: as the data say it, else its first caption.
        whole_lowres: what `lowres` are crops of, (B, 3, h, w), where the plan asks for it.
        places: row and column in it where each of `lowres` begins, (B, 2) int64; with it.
        alpha: opacity, (B, 1, H, W) in [0, 1], where the plan asks for it.
        labels: B names of classes; None = the settings ask for none.
    """

    x: Tensor
    lowres: Tensor | None
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    position: int
    weights: Tensor | None = None
    share: BatchShare | None = None
    first_captions: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    whole_lowres: Tensor | None = None
    places: Tensor | None = None
    alpha: Tensor | None = None
    labels: tuple[str, ...] | None = None

    @property
    def images(self) -> int:
        """Examples of the whole batch, over all processes."""
        return len(self.x) if self.share is None else self.share.total


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What each batch holds.

    Args:
        resolution: side in pixels that images are brought to.
        lowres_resolution: side of their low-resolution partners; None for a base stage.
        config: cropping, fitting, flipping, captions, limits.
        batch_size: examples of the global batch, over all processes.
        seed: of everything random.
        rank: this process; it gets positions rank, rank + world_size, ... of each batch.
        world_size: count of processes; the global order does not depend on it.
        whole_lowres: whether crops come with whole low-resolution images.
        alpha: whether images come with their opacity.
    """

    resolution: int
    lowres_resolution: int | None
    config: DataConfig
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    whole_lowres: bool = False
    alpha: bool = False

    def __post_init__(self) -> None:
        crop = self.config.crop
        if crop is not None and not 0 < crop <= self.resolution:
            raise ConfigError(f"got crop={crop}; expected 1 to {self.resolution} (the stage)")
        if crop is not None and crop % self.grid:
            raise ConfigError(f"got crop={crop}; expected a multiple of {self.grid}")
        if self.lowres_resolution is not None and self.resolution % self.lowres_resolution:
            raise ConfigError(
                f"got lowres_resolution={self.lowres_resolution} for {self.resolution}; "
                "expected a divisor of it"
            )
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ConfigError(
                f"got batch_size={self.batch_size} for {self.world_size} processes; "
                "expected a multiple of their number"
            )
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"got rank={self.rank}; expected 0 to {self.world_size - 1}")

    @property
    def grid(self) -> int:
        """Crops start at multiples of this, so that low-resolution pixels are not cut."""
        return 1 if self.lowres_resolution is None else self.resolution // self.lowres_resolution
