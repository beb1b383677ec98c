"""Several evaluations beside each other: only what was found in the same way is compared."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from calotype.data.shard_file import read_note
from calotype.errors import UsageError
from calotype.evaluation.beforehand import check_measurable
from calotype.evaluation.distances import NEAREST
from calotype.evaluation.evaluate import SAMPLES_FOLDER
from calotype.evaluation.judging import Check
from calotype.evaluation.measure import Measured, measure, open_reference
from calotype.evaluation.metrics.intervals import Estimate, paired_difference
from calotype.evaluation.options import MeasureOptions, options_of
from calotype.evaluation.results import CHECKED, Results, Scores, read_results, write_results
from calotype.evaluation.rows import Found, Rows, add_mean
from calotype.evaluation.samples import Manifest, Sample, SampleSet, open_samples
from calotype.evaluation.samples.derive import derive
from calotype.evaluation.suites.suite import Suite
from calotype.generation.executors import Executor

Recode = Literal["png", "jpeg"]
Pair = tuple[str, int]
Rules = Callable[[Suite, Path | None], Mapping[str, Check] | None]
"""The rules of a suite by category, which may need its reference; None = it has none."""


@dataclass(frozen=True)
class Entry:
    """One of the sets that are compared."""

    name: str
    results: Results
    scores: Scores
    samples: SampleSet


@dataclass(frozen=True)
class Difference:
    """A score of each sample: one set's mean minus the first one's, paired by prompt and image."""

    score: str
    name: str
    estimate: Estimate


def open_entries(folders: Sequence[Path]) -> list[Entry]:
    """Evaluations by their folders, under names that tell them apart.

    Raises:
        UsageError: a folder holds none, or there are fewer than two.
    """
    if len(folders) < 2:
        raise UsageError(f"got {len(folders)} evaluation; expected at least two to compare")
    entries = []
    for folder, name in zip(folders, _names(folders), strict=True):
        results, scores = read_results(folder)
        inside = folder / SAMPLES_FOLDER
        samples = open_samples(inside if inside.is_dir() else _elsewhere(folder, results))
        if tuple(samples.samples) != scores.samples:
            raise UsageError(
                f"{folder} has scores of other samples than those in {samples.folder}; evaluate "
                "them again"
            )
        entries.append(Entry(name, results, scores, samples))
    return entries


def _elsewhere(folder: Path, results: Results) -> Path:
    """Where the samples of an evaluation lie that has none in its own folder."""
    place = results.options.get("samples")
    if not isinstance(place, str):
        raise UsageError(f"{folder} does not say where its samples are; evaluate them again")
    return Path(place)


def refuse_unequal(
    entries: Sequence[Entry], *, common: bool = False, recode: Recode | None = None
) -> None:
    """Refuse sets whose numbers would differ by how they were found.

    What `made_equal` is to make equal, by `common` and `recode`, is passed over.

    Raises:
        UsageError: counts, sizes, encodings, extractors, references or suites differ.
    """
    first = entries[0]
    mended = _BY_COMMON * common + _BY_RECODE * (recode is not None)
    for what, of, remedy in _MUST_BE_EQUAL:
        if what in mended:
            continue
        for other in entries[1:]:
            ours, theirs = of(first), of(other)
            if ours != theirs:
                raise UsageError(
                    f"{first.name} and {other.name} have different {what}: {ours!s:.80} and "
                    f"{theirs!s:.80}; {remedy}"
                )


def made_equal(
    entries: Sequence[Entry], out: Path, *, common: bool, recode: Recode | None,
    say: Callable[[str], None], rules: Rules = lambda suite, reference: None,
) -> list[Entry]:  # fmt: skip
    """The sets cut to the prompts and images that all have, and encoded alike; measured again.

    Args:
        entries: the sets.
        out: folder for what is derived.
        common: whether to keep what all have alone.
        recode: how all images are to be encoded, at the smallest size; None = as they are.
        say: told what is done.
        rules: what judges images that are encoded again, of a suite that has rules of its own.

    Raises:
        UsageError: nothing is left, or what they were measured with is gone.
    """
    keep = _common(entries) if common else None
    side = None if recode is None else min(_smallest_side(entry.samples) for entry in entries)
    settings = [options_of(entry.results.options) for entry in entries]
    for options in settings:  # before anything is written
        check_measurable(options)
    checks = None
    if recode is not None and any(CHECKED in entry.scores.columns for entry in entries):
        checks = rules(entries[0].samples.suite, settings[0].reference)  # those of all
    made = []
    for entry, options in zip(entries, settings, strict=True):
        say(f"making {entry.name} equal to the others")
        folder = out / entry.name
        derive(
            entry.samples,
            folder / SAMPLES_FOLDER,
            keep=keep,
            recode=None if side is None else _recoder(recode or "png", side),
            note={"common": common, "recode": recode, "side": side},
        )
        samples = open_samples(folder / SAMPLES_FOLDER)
        options = replace(options, checks=checks)
        found = _measured_again(entry, samples, options, images_are_kept=side is None, say=say)
        write_results(folder, found.results, found.scores)
        made.append(Entry(entry.name, found.results, found.scores, samples))
    return made


def differences(entries: Sequence[Entry]) -> list[Difference]:
    """Every score that all sets have for each sample, against the first set's."""
    first, found = entries[0], []
    for score in first.scores.columns:
        known = all(score in entry.scores.columns for entry in entries)
        if not known or score.startswith(NEAREST):
            continue
        ours = _by_pair(first, score)
        for other in entries[1:]:
            theirs = _by_pair(other, score)
            if ours.keys() & theirs.keys():
                estimate = paired_difference(theirs, ours, common=True)
                found.append(Difference(score, other.name, estimate))
    return found


def _by_pair(entry: Entry, score: str) -> dict[Pair, float]:
    values = entry.scores.columns[score]
    pairs = zip(entry.scores.samples, values.tolist(), strict=True)
    return {(s.prompt, s.index): value for s, value in pairs if np.isfinite(value)}


def _smallest_side(samples: SampleSet) -> int:
    """Of all images of a set, in pixels; where they differ, shards note it.

    Raises:
        UsageError: one does not.
    """
    if samples.manifest.size is not None:
        return min(samples.manifest.size)
    try:
        noted = [size for file in samples.files for size in (read_note(file) or {})["sizes"]]
        return int(min(min(size) for size in noted))
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{samples.folder} does not note its images' sizes") from error


def _common(entries: Sequence[Entry]) -> set[Pair]:
    sets = [{(s.prompt, s.index) for s in entry.scores.samples} for entry in entries]
    found = set.intersection(*sets)
    if not found:
        raise UsageError("got sets that have no prompt in common; expected samples of one suite")
    return found


def _recoder(kind: Recode, side: int) -> Callable[[Sample, bytes], bytes]:
    """Encode an image of any size and format again: its centre square, area-averaged."""
    from calotype.evaluation.samples.sample_set import square_pixels

    def recode(sample: Sample, data: bytes) -> bytes:
        pixels = square_pixels(data, side).permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        options = {"quality": 90} if kind == "jpeg" else {}
        Image.fromarray(pixels).save(stream, kind.upper(), **options)
        return stream.getvalue()

    return recode


def _measured_again(
    entry: Entry,
    samples: SampleSet,
    options: MeasureOptions,
    *,
    images_are_kept: bool,
    say: Callable[[str], None],
) -> Measured:
    """With the options that the set was measured with.

    Scores by programs and by a suite's own rules are those of before, where images are.
    """
    reference = open_reference(options, Executor())
    measured = measure(samples, options, reference=reference, say=say)
    assert measured is not None  # this is the only process
    lost = [name for name in entry.scores.columns if name not in measured.scores.columns]
    if not lost:
        return measured
    if not images_are_kept:
        say(f"scores of images as they were are left out: {', '.join(lost)}")
        return measured
    kept = {sample.key: row for row, sample in enumerate(entry.scores.samples)}
    rows = Rows(samples.samples, samples.manifest.each)
    found = Found(measured.scores, list(measured.results.numbers))
    for name in lost:
        column = entry.scores.columns[name][[kept[sample.key] for sample in rows.samples]]
        if np.isfinite(column).any():
            add_mean(found, rows, name, torch.from_numpy(column), fraction=name == CHECKED)
    categories = {sample.category for sample in rows.samples}
    left = {name: why for name, why in entry.results.left_to_people.items() if name in categories}
    results = replace(measured.results, numbers=tuple(found.numbers), left_to_people=left)
    return Measured(results, found.scores)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of their paths as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-depth:]).replace("/", "") for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError("got one folder twice; expected different evaluations")


def _suite(entry: Entry) -> str:
    suite = entry.results.samples.suite
    return f"{suite.name} {suite.sha256[:12]}"


def _counts(entry: Entry) -> tuple[int, int | None]:
    manifest: Manifest = entry.results.samples
    return manifest.count, manifest.each


def _extractors(entry: Entry) -> list[tuple[str, str]]:
    return sorted((one.name, one.fingerprint[:12]) for one in entry.results.extractors)


def _reference(entry: Entry) -> str:
    real = entry.results.reference
    return "none" if real is None else f"{real.name} {real.fingerprint[:12]}"


_AGAIN = "evaluate them alike"
_BY_COMMON, _BY_RECODE = ("numbers of images",), ("image sizes", "encodings")
_MUST_BE_EQUAL: tuple[tuple[str, Callable[[Entry], object], str], ...] = (
    ("suites", _suite, _AGAIN),
    ("numbers of images", _counts, "--common compares what all have"),
    ("image sizes", lambda e: e.results.samples.size, "--recode png brings them to one"),
    ("encodings", lambda e: e.results.samples.encoding, "--recode png or jpeg makes them one"),
    ("sides before features", lambda e: e.results.side, f"{_AGAIN}, with --side"),
    ("extractors", _extractors, f"{_AGAIN}, with --features and --clip"),
    ("references", _reference, f"{_AGAIN}, with --reference"),
)
