"""What a sweep tries: values of settings of stages, alone or in the papers' grids.

Reference: Saharia et al. 2022, arXiv:2205.11487, sections 4.4 and appendix D (guidance weights of
the base and of the first super-resolution stage, thresholding, aug_level).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import override
from calotype.errors import ConfigError, UsageError

MOST_CELLS = 400
THRESHOLDING: Mapping[str, tuple[str, ...]] = {
    "none": ("threshold_percentile=null", "static_clip=false"),
    "static": ("threshold_percentile=null", "static_clip=true"),
    "dynamic": ("threshold_percentile=0.995",),
}
"""An axis of its own, for it is two settings: no threshold at all, [-1, 1], or a percentile."""
_BASE_WEIGHTS = ("1", "1.25", "1.5", "1.75", "2", "3", "4", "5", "6", "7", "8", "9", "10")
_UPPER_WEIGHTS = ("1", "3", "5", "7", "8", "10", "12", "15", "18")
_FEW_WEIGHTS = ("1", "1.25", "1.5", "2", "3", "5", "10")


@dataclass(frozen=True)
class Axis:
    """The values of one setting that are tried, of the stage of a resolution."""

    resolution: int
    setting: str
    values: tuple[str, ...]

    def assignments(self, value: str) -> tuple[str, ...]:
        """What `config.typed_json.override` takes for one of the values."""
        if self.setting == "thresholding":
            return THRESHOLDING[value]
        return (f"{self.setting}={value}",)


@dataclass(frozen=True)
class Cell:
    """One value of every axis: texts, in the axes' order."""

    values: tuple[str, ...]

    def options(self, axes: Sequence[Axis]) -> list[str]:
        """As `Request.stage_options` has them."""
        pairs = zip(axes, self.values, strict=True)
        return [f"{axis.resolution}:{','.join(axis.assignments(value))}" for axis, value in pairs]

    def folder(self, axes: Sequence[Axis]) -> str:
        """Name of the folder of its samples."""
        pairs = zip(axes, self.values, strict=True)
        text = " ".join(f"{axis.resolution}-{axis.setting}={value}" for axis, value in pairs)
        return re.sub(r"[^A-Za-z0-9=.+-]+", "_", text)


def parse_axis(text: str) -> Axis:
    """Read e.g. "64:guidance_weight=1,1.5,2"; commas within brackets belong to a value.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"\s*(\d{1,6}):([a-z_]+)=(.+)", text)
    if match is None:
        raise UsageError(f"got --axis {text!r:.80}; expected e.g. 64:guidance_weight=1,1.5,2")
    values = tuple(part.strip() for part in re.split(r",(?![^\[]*\])", match[3]))
    axis = Axis(int(match[1]), match[2], tuple(dict.fromkeys(values)))
    known = list(THRESHOLDING)
    if axis.setting == "thresholding" and not set(axis.values) <= set(known):
        raise UsageError(f"got --axis {text!r:.80}; expected values of {known}")
    return axis


def preset_axes(name: str, resolutions: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of a preset, for a cascade's stages, coarse to fine.

    Raises:
        UsageError: there is no such preset, or the cascade has no such stage.
    """
    if name not in PRESETS:
        raise UsageError(f"got --preset {name!r:.80}; expected one of {', '.join(PRESETS)}")
    axes = []
    for stage, setting, values in PRESETS[name]:
        if stage >= len(resolutions):
            raise UsageError(f"got --preset {name} for a cascade of one stage; expected two")
        axes.append(Axis(resolutions[stage], setting, values))
    return tuple(axes)


PRESETS: Mapping[str, tuple[tuple[int, str, tuple[str, ...]], ...]] = {
    "guidance": ((0, "guidance_weight", _BASE_WEIGHTS),),
    "guidance-super-resolution": ((1, "guidance_weight", _UPPER_WEIGHTS),),
    "thresholding": (
        (0, "thresholding", tuple(THRESHOLDING)),
        (0, "guidance_weight", _FEW_WEIGHTS),
    ),
    "aug_level": ((1, "aug_level", ("0", "0.1", "0.2", "0.3", "0.4", "0.5")),),
    "steps": ((0, "steps", ("4", "6", "8", "16", "32", "64", "128", "256")),),
    "sampler": (
        (0, "sampler", ("ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun")),
        (0, "steps", ("8", "16", "32", "64")),
    ),
}
"""By name: number of the stage, setting, values. The last axis of a preset is a curve's own."""


def cells_of(axes: Sequence[Axis], defaults: Mapping[int, SamplingConfig]) -> list[Cell]:
    """Every value of every axis with every other, each checked.

    Raises:
        UsageError: there is no such stage, setting or value, too many cells, or two of one kind.
    """
    if not axes:
        raise UsageError("got nothing to sweep; expected --preset NAME, or --axis")
    for axis in axes:
        if axis.resolution not in defaults:
            raise UsageError(
                f"got an axis of {axis.resolution}; expected one of the stages {list(defaults)}"
            )
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_CELLS:
        raise UsageError(f"got {count} cells; expected at most {MOST_CELLS}: take fewer values")
    cells = [Cell(values) for values in itertools.product(*(axis.values for axis in axes))]
    known: dict[tuple[SamplingConfig, ...], Cell] = {}
    for cell in cells:
        settings = dict(defaults)
        for resolution, changes in _changes(axes, cell):
            try:
                settings[resolution] = override(defaults[resolution], changes)
            except ConfigError as error:
                raise UsageError(f"got {resolution}:{','.join(changes)}: {error}") from error
        same = known.setdefault(tuple(settings.values()), cell)
        if same is not cell:
            raise UsageError(
                f"got {' '.join(same.options(axes))!r:.200} and "
                f"{' '.join(cell.options(axes))!r:.200}, which are the same settings; expected "
                "each value once, and each setting on one axis"
            )
    return cells


def _changes(axes: Sequence[Axis], cell: Cell) -> Iterator[tuple[int, tuple[str, ...]]]:
    """What a cell changes of each stage."""
    by_stage: dict[int, tuple[str, ...]] = {}
    for axis, value in zip(axes, cell.values, strict=True):
        before = by_stage.get(axis.resolution, ())
        by_stage[axis.resolution] = (*before, *axis.assignments(value))
    yield from by_stage.items()
