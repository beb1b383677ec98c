"""Which sampling settings are best? One axis after another, each from the best found so far.

Every cell samples the same captions with the same seeds, and is judged by the mean squared error to
the real images and by KID to a fixed set of real images. The rule that chooses is fixed before.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.cascade import Cascade
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import override
from calotype.emoji.gallery import (
    ImageRow,
    in_hash_order,
    keys_at,
    over_background,
    read_images,
    read_rows,
)
from calotype.errors import ConfigError, UsageError
from calotype.evaluation.about import table
from calotype.evaluation.features import Features, kernel_distance

TOLERANCE = 0.05
RULE = (
    f"chosen is the lowest KID among the cells whose unseen error is within {TOLERANCE:.0%} of the "
    "lowest of the axis"
)
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
class Cell:
    """What one setting reached: mean squared error on trained and unseen pairs, and KID."""

    sampling: SamplingConfig
    trained: float
    unseen: float
    kid: float


@dataclass(frozen=True, kw_only=True)
class AxisResult:
    """An axis measured.

    Args:
        resolution: of the stage.
        setting: the field of its sampling settings that differs between the cells.
        trained: captions of trained pairs.
        unseen: captions of unseen pairs; each cell has so many samples together.
        reference: real images that KID compares them with.
        chosen: index of the cell that `RULE` chooses.
        cells: in order.
    """

    resolution: int
    setting: str
    trained: int
    unseen: int
    reference: int
    chosen: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All axes of a model, in the order they were measured."""

    model: str
    axes: tuple[AxisResult, ...]


@dataclass(frozen=True, kw_only=True)
class SweepSize:
    """How much is measured: captions of a stage (half of them unseen), and real images at least."""

    captions: int = 96
    reference: int = 1000


@dataclass(frozen=True)
class _Subject:
    """What a stage samples, and what the samples are compared with.

    Args:
        rows: one a sample; trained pairs first.
        x: their real images, (N, 3, R, R).
        reference: features of real images, (M, D).
        lowres: what the stage before sampled, (N, 3, r, r); None for a base.
        cells: what has been measured.
    """

    rows: tuple[ImageRow, ...]
    x: Tensor
    reference: Tensor
    lowres: Tensor | None
    cells: dict[SamplingConfig, Cell] = field(default_factory=dict)


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

    Args:
        cascade: what is judged.
        data: the emoji set's folder.
        axes: those of a stage in the order they are measured.
        features: (N, 3, H, W) -> (N, D), e.g. `load_features()`.
        size: how much is measured.
        say: told of every cell.

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
        subject = _subject(
            cascade,
            data,
            resolution,
            size=size or SweepSize(),
            best=best,
            features=features,
        )
        for axis in stage_axes:
            result = _measure(cascade, subject, axis, best[resolution], features=features, say=say)
            best[resolution] = result.cells[result.chosen].sampling
            results.append(result)
    return Sweep(model=cascade.name, axes=tuple(results))


def choose(cells: Sequence[Cell]) -> int:
    """Index of the cell that `RULE` chooses."""
    limit = min(cell.unseen for cell in cells) * (1 + TOLERANCE)
    allowed = [place for place, cell in enumerate(cells) if cell.unseen <= limit]
    return min(allowed, key=lambda place: cells[place].kid)


def sweep_tables(results: Sweep) -> str:
    """One Markdown table an axis; the chosen value is bold."""
    parts = [f"Mean squared error to the real images, and KID on EfficientNet-Lite0; {RULE}."]
    for axis in results.axes:
        rows = []
        for place, cell in enumerate(axis.cells):
            value = f"{getattr(cell.sampling, axis.setting)}"
            errors = [f"{cell.trained:.4f}", f"{cell.unseen:.4f}", f"{cell.kid:.4f}"]
            rows.append([f"**{value}**" if place == axis.chosen else value, *errors])
        parts += [
            f"{axis.resolution}²: N = {axis.trained} trained + {axis.unseen} unseen pairs; KID to "
            f"{axis.reference} real images.",
            table([f"`{axis.setting}`", "trained pairs", "unseen pairs", "KID"], rows),
        ]
    return "\n\n".join(parts) + "\n"


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


def _subject(
    cascade: Cascade,
    data: Path,
    resolution: int,
    *,
    size: SweepSize,
    best: Mapping[int, SamplingConfig],
    features: Features,
) -> _Subject:
    present = keys_at(data, resolution)
    known = in_hash_order(row for row in read_rows(data) if row.key in present)
    ordered = {
        split: [row for row in known if row.split == split] for split in ("train", "unseen_pair")
    }
    rows = tuple(row for split in ordered.values() for row in split[: size.captions // 2])
    if len(rows) < max(2, size.captions // 2 * 2):
        raise UsageError(
            f"got {len(rows)} rows at {resolution} pixels for {size.captions} captions; expected "
            "half of them trained and half unseen pairs: ask for fewer captions, at least 2"
        )
    # Whole parts, each as large as the samples: see `kernel_distance`.
    wanted = -(-size.reference // len(rows)) * len(rows)
    others = [row for split in ordered.values() for row in split[size.captions // 2 :]]
    x, reference = _real(data, rows, others[: wanted - len(rows)], resolution, features)
    before = [side for side in best if side < resolution]
    lowres = None
    if before:
        lowres = cascade.sample(
            [row.caption for row in rows],
            seeds=range(len(rows)),
            stop_at=before[-1],
            sampling={side: best[side] for side in before},
        ).images[-1]
    return _Subject(rows, x, reference, lowres)


def _real(
    data: Path,
    rows: Sequence[ImageRow],
    others: Sequence[ImageRow],
    resolution: int,
    features: Features,
) -> tuple[Tensor, Tensor]:
    """The real images of `rows`, and the features of all, those of `rows` first."""
    images, found = {}, {}
    own = {row.key for row in rows}
    keys = own | {row.key for row in others}
    for key, rgba in read_images(data, keys, resolution):
        image = over_background(rgba)
        found[key] = features(image[None])[0]
        if key in own:
            images[key] = image
    missing = sorted(own - set(images))
    if missing:
        raise UsageError(f"got no image of {missing[0]!r} at {resolution} pixels; make it again")
    listed = [row.key for row in (*rows, *others) if row.key in found]
    return torch.stack([images[row.key] for row in rows]), torch.stack([found[k] for k in listed])


def _measure(
    cascade: Cascade,
    subject: _Subject,
    axis: Axis,
    best: SamplingConfig,
    *,
    features: Features,
    say: Callable[[str], None],
) -> AxisResult:
    """One axis; the value in force is always among its cells, and numbers rise."""
    tried = [*(_with(best, axis, value) for value in axis.values), best]
    if all(isinstance(getattr(sampling, axis.setting), int | float) for sampling in tried):
        tried.sort(key=lambda sampling: float(getattr(sampling, axis.setting)))
    cells = []
    for sampling in dict.fromkeys(tried):
        if sampling not in subject.cells:
            subject.cells[sampling] = _cell(cascade, subject, axis.resolution, sampling, features)
        cell = subject.cells[sampling]
        say(
            f"{axis.resolution}: {axis.setting} {getattr(sampling, axis.setting)}: error "
            f"{cell.trained:.4f} trained, {cell.unseen:.4f} unseen, KID {cell.kid:.4f} "
            f"(N = {len(subject.rows)})"
        )
        cells.append(cell)
    trained = sum(row.split == "train" for row in subject.rows)
    return AxisResult(
        resolution=axis.resolution,
        setting=axis.setting,
        trained=trained,
        unseen=len(subject.rows) - trained,
        reference=len(subject.reference) // len(subject.rows) * len(subject.rows),
        chosen=choose(cells),
        cells=tuple(cells),
    )


def _cell(
    cascade: Cascade,
    subject: _Subject,
    resolution: int,
    sampling: SamplingConfig,
    features: Features,
) -> Cell:
    captions, seeds = [row.caption for row in subject.rows], range(len(subject.rows))
    own = {resolution: sampling}
    if subject.lowres is None:
        sample = cascade.sample(captions, seeds=seeds, stop_at=resolution, sampling=own)
    else:
        sample = cascade.upscale(
            subject.lowres, captions, seeds=seeds, stop_at=resolution, sampling=own
        )
    images = sample.images[-1]
    pairs = zip(images, subject.x, strict=True)  # one by one: at 1024 pixels all are gigabytes
    errors = torch.stack([(image - x).double().square().mean() for image, x in pairs])
    trained = torch.tensor([row.split == "train" for row in subject.rows])
    return Cell(
        sampling=sampling,
        trained=float(errors[trained].mean()),
        unseen=float(errors[~trained].mean()),
        kid=kernel_distance(subject.reference, features(images)),
    )
