"""Which sampling settings are best? One axis after another, each from the best found so far.

Every cell samples the same captions with the same seeds, and is judged by the mean squared error to
the real images and by KID to a fixed set of real images. The rule that chooses is fixed before.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.cascade import Cascade, SampleOptions
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import override
from calotype.emoji.gallery import in_hash_order, keys_at, over_background, read_images, read_rows
from calotype.emoji.prompts import ImageRow
from calotype.emoji.sweep_results import AxisResult, Cell, Sweep, choose
from calotype.errors import ConfigError, UsageError
from calotype.evaluation.features import Features, kernel_distance

_BASE: Mapping[str, tuple[float, ...]] = {
    "sigma_max": (0.3, 0.5, 0.7, 1.0, 1.4, 2.0),
    "steps": (4, 6, 8, 12),
    "sigma_min": (0.02, 0.04, 0.1, 0.2),
    "guidance_weight": (1.0, 1.25, 1.5, 2.0),
}
_SUPER_RESOLUTION: Mapping[str, tuple[float, ...]] = {
    "aug_level": (0.0, 0.05, 0.1, 0.2),
    "steps": (2, 4, 8),
    "sigma_min": (0.1, 0.2, 0.4),
    "sigma_max": (1.0, 2.0, 4.0),
}


@dataclass(frozen=True)
class Axis:
    """What is tried: the values of one setting of the stage of `resolution`."""

    resolution: int
    setting: str
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class SweepSize:
    """How much is measured: captions of a stage (half of them unseen), and real images at least."""

    captions: int = 96
    reference: int = 1000


def parse_axis(text: str) -> Axis:
    """Read e.g. "64:sigma_max=0.3,0.5"; commas within brackets belong to a value."""
    match = re.fullmatch(r"\s*(\d{1,6}):([a-z_]+)=(.+)", text)
    if match is None:
        raise UsageError(f"got axis {text!r:.80}; expected e.g. 64:sigma_max=0.3,0.5,0.7")
    return Axis(int(match[1]), match[2], tuple(re.split(r",(?![^\[]*\])", match[3])))


def default_axes(configs: Iterable[StageConfig]) -> list[Axis]:
    """The axes of each stage, without sigmas where the grid has none or the start is noise."""
    axes = []
    for config in configs:
        is_base = config.lowres_resolution is None
        for setting, values in (_BASE if is_base else _SUPER_RESOLUTION).items():
            by_sigma = config.sampling.grid == "karras"
            if setting == "sigma_max" and is_base:
                by_sigma = config.sampling.start == "draft"
            if by_sigma or not setting.startswith("sigma"):
                axes.append(Axis(config.resolution, setting, values))
    return axes


def sweep(
    cascade: Cascade,
    data: Path,
    axes: Sequence[Axis],
    *,
    features: Features,
    size: SweepSize | None = None,
    say: Callable[[str], None] = print,
) -> Sweep:
    """Measure the axes, coarse stages first; a stage enlarges what the best settings sampled.

    Axes of a stage are measured in their order. `features` maps (N, 3, H, W) -> (N, D), e.g.
    `load_features()`; `say` is told of every cell.

    Raises:
        UsageError: an axis does not fit the cascade, or the data lacks rows of a kind.
    """
    best = {stage.config.resolution: stage.config.sampling for stage in cascade.stages}
    axes = sorted(axes, key=lambda axis: axis.resolution)
    for axis in axes:
        if axis.resolution not in best:
            raise UsageError(f"got an axis of {axis.resolution}; expected one of {list(best)}")
    for resolution, sampling in best.items():
        _check([axis for axis in axes if axis.resolution == resolution], sampling)
    results = []
    for resolution, stage_axes in itertools.groupby(axes, key=lambda axis: axis.resolution):
        say(f"reading real images of {resolution} pixels")
        rows, others = _chosen_rows(data, resolution, size or SweepSize())
        x, reference = _read_real(data, resolution, rows, others, features)
        before = {side: sampling for side, sampling in best.items() if side < resolution}
        stage = _Stage(cascade, resolution, features, rows, x, reference, before)
        for axis in stage_axes:
            result = stage.measure(axis, best[resolution], say)
            best[resolution] = result.cells[result.chosen].sampling
            results.append(result)
    return Sweep(model=cascade.name, axes=tuple(results))


def _with(sampling: SamplingConfig, axis: Axis, value: Any) -> SamplingConfig:
    changed = override(sampling, [f"{axis.setting}={value}"])
    # A published list of timesteps would take the place of the steps.
    return replace(changed, timesteps=None) if axis.setting == "steps" else changed


def _check(axes: Sequence[Axis], sampling: SamplingConfig) -> None:
    """Refuse values that do not fit each other before anything is sampled."""
    # The value in force is tried as well; a setting that does not exist is refused by `_with`.
    tried = [(*axis.values, getattr(sampling, axis.setting, axis.values[0])) for axis in axes]
    for values in itertools.product(*tried):
        changed = sampling
        for axis, value in zip(axes, values, strict=True):
            try:
                changed = _with(changed, axis, value)
            except ConfigError as error:
                raise UsageError(
                    f"got the axis value {axis.resolution}:{axis.setting}={value}: {error}"
                ) from error


def _chosen_rows(
    data: Path, resolution: int, size: SweepSize
) -> tuple[list[ImageRow], list[ImageRow]]:
    """The rows of the samples, trained pairs first, and of the other real images for KID."""
    present, half = keys_at(data, resolution), size.captions // 2
    known = in_hash_order(row for row in read_rows(data) if row.key in present)
    splits = [[row for row in known if row.split == s] for s in ("train", "unseen_pair")]
    rows = [row for split in splits for row in split[:half]]
    if len(rows) < max(2, half * 2):
        raise UsageError(
            f"got {len(rows)} rows at {resolution} pixels for {size.captions} captions; expected "
            "half of them trained and half unseen pairs: ask for fewer captions, at least 2"
        )
    # Whole blocks, each as large as the samples: see `kernel_distance`.
    wanted = -(-size.reference // len(rows)) * len(rows)
    others = [row for split in splits for row in split[half:]]
    return rows, others[: wanted - len(rows)]


def _read_real(
    data: Path,
    resolution: int,
    rows: Sequence[ImageRow],
    others: Sequence[ImageRow],
    features: Features,
) -> tuple[Tensor, Tensor]:
    """The real images of `rows`, (N, 3, R, R), and the features of all, those of `rows` first."""
    images, found = {}, {}
    own, listed = {row.key for row in rows}, [row.key for row in (*rows, *others)]
    for key, rgba in read_images(data, set(listed), resolution):
        image = over_background(rgba)
        found[key] = features(image[None])[0]
        if key in own:
            images[key] = image
    missing = sorted(own - set(images))
    if missing:
        raise UsageError(f"got no image of {missing[0]!r} at {resolution} pixels; make it again")
    reference = torch.stack([found[key] for key in listed if key in found])
    return torch.stack([images[row.key] for row in rows]), reference


@dataclass(frozen=True)
class _Stage:
    """What a stage samples, and what the samples are compared with.

    `x`, (N, 3, R, R), are the real images of `rows`, trained pairs first; `reference`, (M, D),
    features of real images; `before` has the settings of the stages before.
    """

    cascade: Cascade
    resolution: int
    features: Features
    rows: Sequence[ImageRow]
    x: Tensor
    reference: Tensor
    before: Mapping[int, SamplingConfig]
    _cells: dict[SamplingConfig, Cell] = field(default_factory=dict)

    def measure(self, axis: Axis, best: SamplingConfig, say: Callable[[str], None]) -> AxisResult:
        """One axis; the value in force is always among its cells, and numbers rise."""
        tried = [*(_with(best, axis, value) for value in axis.values), best]
        if all(isinstance(getattr(sampling, axis.setting), int | float) for sampling in tried):
            tried.sort(key=lambda sampling: float(getattr(sampling, axis.setting)))
        cells = []
        for sampling in dict.fromkeys(tried):
            if sampling not in self._cells:
                self._cells[sampling] = self._measure_cell(sampling)
            cell = self._cells[sampling]
            say(
                f"{axis.resolution}: {axis.setting} {getattr(sampling, axis.setting)}: error "
                f"{cell.trained:.4f} trained, {cell.unseen:.4f} unseen, KID {cell.kid:.4f} "
                f"(N = {len(self.rows)})"
            )
            cells.append(cell)
        count, trained = len(self.rows), sum(row.split == "train" for row in self.rows)
        return AxisResult(
            resolution=axis.resolution,
            setting=axis.setting,
            trained=trained,
            unseen=count - trained,
            reference=len(self.reference) // count * count,
            chosen=choose(cells),
            cells=tuple(cells),
        )

    @cached_property
    def _lowres(self) -> Tensor | None:
        """What the stage before samples, (N, 3, r, r); None for a base."""
        return self._sample(self.before) if self.before else None

    def _sample(
        self, sampling: Mapping[int, SamplingConfig], lowres: Tensor | None = None
    ) -> Tensor:
        """The images of the last stage that `sampling` names."""
        captions, seeds = [row.caption for row in self.rows], range(len(self.rows))
        options: SampleOptions = {"stop_at": max(sampling), "sampling": sampling}
        if lowres is None:
            return self.cascade.sample(captions, seeds=seeds, **options).images[-1]
        return self.cascade.upscale(lowres, captions, seeds=seeds, **options).images[-1]

    def _measure_cell(self, sampling: SamplingConfig) -> Cell:
        images = self._sample({self.resolution: sampling}, self._lowres)
        pairs = zip(images, self.x, strict=True)  # one by one: at 1024 pixels all are gigabytes
        errors = torch.stack([(image - x).double().square().mean() for image, x in pairs])
        trained = torch.tensor([row.split == "train" for row in self.rows])
        return Cell(
            sampling=sampling,
            trained=float(errors[trained].mean()),
            unseen=float(errors[~trained].mean()),
            kid=kernel_distance(self.reference, self.features(images)),
        )
