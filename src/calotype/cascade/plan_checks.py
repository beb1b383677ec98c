"""What a plan is made of, checked piece by piece: seeds, settings of each stage, tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TypeVar

from calotype.cascade.sizes import check_pixels
from calotype.cascade.tiles import MAX_TILED_SIDE, Tiling
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError

_MAX_SEED = 2**63 - 1
T = TypeVar("T")
PerStage = Sequence[T] | Mapping[int, T]


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, each checked to be an integer from 0 to 2^63-1."""
    if isinstance(seeds, Integral):
        raise UsageError(f"got one number as seeds; expected a list: [{seeds}]")
    for seed in seeds:
        whole = isinstance(seed, Integral) and not isinstance(seed, bool)  # numpy's, too
        if not whole or not 0 <= seed <= _MAX_SEED:
            raise UsageError(f"got seed {seed!r:.80}; expected an integer from 0 to 2^63-1")
    return tuple(int(seed) for seed in seeds)


def per_stage(
    what: str, given: PerStage[T] | None, configs: Sequence[StageConfig]
) -> Sequence[T | None]:
    """What is given for each stage, in their order; None where nothing is."""
    resolutions = [config.resolution for config in configs]
    if given is None:
        return [None] * len(configs)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(resolutions))
        if unknown:
            raise UsageError(f"got {what} for stage {unknown[0]}; expected stages of {resolutions}")
        return [given.get(resolution) for resolution in resolutions]
    if isinstance(given, Sequence) and len(given) == len(configs):
        return given
    kind = type(given).__name__
    got = f"{len(given)} {what}" if isinstance(given, Sequence) else f"{what} of type {kind}"
    raise UsageError(
        f"got {got} for the {len(configs)} stages {resolutions}; expected a mapping from "
        "resolution, or one each"
    )


def tiling_of(tiling: Tiling | None, size: tuple[int, int], config: StageConfig) -> Tiling | None:
    """How a stage parts images; None where one tile holds them, or it sees them as a whole."""
    if tiling is None or config.lowres_resolution is None or config.draft is not None:
        check_pixels(size, config)
        return None
    check_pixels(size, config, most=MAX_TILED_SIDE**2)
    return tiling if tiling.tiles(size, config.network.divisor) else None


def check_aug_level(settings: SamplingConfig, config: StageConfig) -> None:
    """Refuse noise on the low-resolution image of a stage that has none."""
    base = config.lowres_resolution is None
    if base and settings.aug_level not in (0.0, config.sampling.aug_level):
        raise UsageError(
            f"got aug_level={settings.aug_level:g} for the {config.resolution} stage, which "
            "enlarges nothing; expected it for a stage that does"
        )
