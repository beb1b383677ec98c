"""What pages of evaluations show: numbers in words, and samples as small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calotype.errors import MissingExtra
from calotype.evaluation.results import CHECKED, Number, Results, Scores
from calotype.evaluation.samples import Manifest, SampleSet
from calotype.pages.images import PageImage, page_image

_SIDE = 176


@dataclass(frozen=True)
class Shown:
    """A sample on a page: its image, caption and what is said of it.

    `failed`: a check found that it does not show its caption; None = nothing was found.
    """

    image: PageImage | None
    caption: str
    remark: str
    failed: bool | None


def decimals(value: float) -> str:
    """A number in few digits, none of them an exponent where that can be."""
    if abs(value) < 1e-9 or not math.isfinite(value):  # rounding: a distance of 0 is 0
        return f"{0 if math.isfinite(value) else value:g}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    if abs(value) >= 1:
        return f"{value:.3f}"
    return f"{value:.{max(4, 2 - math.floor(math.log10(abs(value))))}f}"


def interval(number: Number) -> str:
    """The 95 % interval; "" where there is none."""
    if number.low is None or number.high is None:
        return ""
    return f"{decimals(number.low)} – {decimals(number.high)}"


def thumbnail(samples: SampleSet, row: int) -> PageImage | None:
    """A sample as a small JPEG in an address."""
    return page_image(samples.encoded(row), kept_bytes=0, side=_SIDE)


def shown(samples: SampleSet, scores: Scores, row: int) -> Shown:
    """A sample with its scores."""
    sample = scores.samples[row]
    right = scores.columns.get(CHECKED)
    failed = None if right is None or not np.isfinite(right[row]) else bool(right[row] == 0)
    remarks = [
        f"{name} {decimals(float(values[row]))}"
        for name, values in scores.columns.items()
        if name.startswith("CLIP score") and np.isfinite(values[row])
    ]
    return Shown(thumbnail(samples, row), sample.caption, "; ".join(remarks), failed)


def worst_first(scores: Scores, rows: Sequence[int]) -> list[int]:
    """Rows of samples, those first that failed, then those that fit their captions least."""
    keys = []
    right = scores.columns.get(CHECKED)
    fits = next((v for n, v in scores.columns.items() if n.startswith("CLIP score")), None)
    for row in rows:
        first = 0.5 if right is None or not np.isfinite(right[row]) else right[row]
        second = 0.0 if fits is None or not np.isfinite(fits[row]) else fits[row]
        keys.append((float(first), float(second), row))
    return [row for _, _, row in sorted(keys)]


def facts(results: Results) -> list[tuple[str, str]]:
    """What decides the numbers, name by name."""
    manifest, suite = results.samples, results.samples.suite
    lines = [
        ("model", manifest.name),
        ("weights", manifest.weights[:16] or "not known"),
        ("suite", f"{suite.name} ({suite.prompts:,} prompts), SHA-256 {suite.sha256[:16]}"),
        *((f"suite: {name}", str(value)) for name, value in suite.choices.items()),
        ("samples", _samples(manifest)),
        *_stages(manifest),
    ]
    if results.reference is not None:
        real = results.reference
        split = "" if real.split is None else f", split {real.split}"
        text = f"{real.name}{split}: {real.count:,} images, SHA-256 {real.fingerprint[:16]}"
        lines.append(("reference", text))
    lines += [
        (f"features: {one.name}", f"{one.description}; {one.fingerprint[:16]}")
        for one in results.extractors
    ]
    lines.append(("images before features", f"centre square, area-averaged to {results.side} px"))
    return lines


def _samples(manifest: Manifest) -> str:
    size = (
        "of different sizes" if manifest.size is None else "x".join(map(str, manifest.size[::-1]))
    )
    each = "" if manifest.each is None else f", {manifest.each} a prompt"
    seed = "" if manifest.seed is None else f", seed {manifest.seed}"
    missing = f", {len(manifest.missing)} prompts without one" if manifest.missing else ""
    return f"{manifest.count:,} images, {size}, {manifest.encoding}{each}{seed}{missing}"


def _stages(manifest: Manifest) -> list[tuple[str, str]]:
    found = []
    for stage in (manifest.recipe or {}).get("stages", ()):
        settings = stage.get("sampling", {})
        text = ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
        found.append((f"stage {stage.get('resolution', '')}", text))
    if manifest.origin is not None:
        found.append(("paired with prompts by", str(manifest.origin.get("paired_by"))))
    return found


def need_pages() -> None:
    """Say in time which extra brings what pages are made with.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("evaluate", str(error.name)) from error
