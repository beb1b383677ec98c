"""What the commands that evaluate measure, of their options: extractors, scorers, rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calotype.cli.evaluate_inputs import LEAST_SIDE, Asked
from calotype.errors import UsageError
from calotype.launch import launched_place

if TYPE_CHECKING:
    from calotype.evaluation.features.extractor import ExtractorSpec
    from calotype.evaluation.judging import Check
    from calotype.evaluation.options import MeasureOptions
    from calotype.evaluation.scorers import Scorer
    from calotype.evaluation.suites.suite import Suite

_LONGEST_TIMEOUT = 7 * 24 * 3600


def measure_options(
    asked: Asked,
    *,
    side: int,
    device: str | None,
    features: Sequence[str] | None,
    clip: str | None,
    scorers: Sequence[str] | None,
    scorer_timeout: float | None,
    cache: Path | None,
    reference: Path | None,
    reference_split: str | None,
    reference_images: int | None,
    training: Path | None = None,
    alexnet: Path | None = None,
) -> MeasureOptions:
    """What is measured of a suite's samples, of a command's options as they are given.

    Raises:
        UsageError: an option is out of range, or names nothing known.
    """
    from calotype.evaluation.features.store import default_root
    from calotype.evaluation.options import MeasureOptions
    from calotype.evaluation.reference import Which

    if not LEAST_SIDE <= side <= 4096:
        raise UsageError(f"got --side {side}; expected {LEAST_SIDE} to 4096 pixels")
    place = _device_of(device)
    return MeasureOptions(
        side=side,
        extractors=_read_features(features, place),
        clip=_clip_spec(clip, place),
        scorers=_read_scorers(scorers, scorer_timeout),
        root=default_root() if cache is None else cache.resolve(),
        reference=reference,
        which=Which(reference_split, reference_images, asked.names),
        training=training,
        alexnet=alexnet,
        checks=suite_checks(asked.suite, reference),
    )


def suite_checks(suite: Suite, reference: Path | None) -> dict[str, Check] | None:
    """The suite's own rules, if it has any; those of emoji-11 need the emoji set.

    Raises:
        UsageError: the reference is no emoji set.
    """
    from calotype.emoji.eleven.checks import checks
    from calotype.emoji.eleven.suite import NAME, emoji_suite

    if suite.sha256 != emoji_suite().sha256:
        return None
    if reference is None:
        raise UsageError(f"got {NAME} without --reference; expected the folder of: data emoji")
    return dict(checks(reference))


def _device_of(device: str | None) -> str:
    """Where features are computed: where sampling is, a GPU if there is one."""
    from calotype.runtime import choose_runtime

    return launched_place().device(choose_runtime(device, "float32").device)


def _read_features(texts: Sequence[str] | None, device: str) -> tuple[ExtractorSpec, ...]:
    """Extractors of NAME or NAME=PATH.

    Raises:
        UsageError: there is no such extractor.
    """
    from calotype.evaluation.features.extractor import NAMES, ExtractorSpec

    specs = []
    for text in texts or ("lite0",):
        name, _, path = text.partition("=")
        if name not in NAMES:
            raise UsageError(f"got --features {text!r:.80}; expected one of {', '.join(NAMES)}")
        specs.append(ExtractorSpec(name, Path(path).resolve() if path else None, device))
    return tuple(dict.fromkeys(specs))


def _clip_spec(clip: str | None, device: str) -> ExtractorSpec | None:
    """The CLIP that scores captions; None where there is to be none."""
    from calotype.evaluation.features.extractor import ExtractorSpec

    if clip == "none":
        return None
    return ExtractorSpec("clip", None if clip is None else Path(clip).resolve(), device)


def _read_scorers(texts: Sequence[str] | None, timeout: float | None) -> tuple[Scorer, ...]:
    """Programs of NAME=COMMAND, with names of their own."""
    from calotype.evaluation.scorers import TIMEOUT_SECONDS, parse_scorer

    seconds = TIMEOUT_SECONDS if timeout is None else timeout
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise UsageError(
            f"got --scorer-timeout {seconds:g}; expected seconds, more than 0 and at most "
            f"{_LONGEST_TIMEOUT:,}"
        )
    programs = tuple(parse_scorer(text, timeout_seconds=seconds) for text in texts or ())
    if len({program.name for program in programs}) < len(programs):
        raise UsageError(f"got {len(programs)} scorers, two of one name; expected different names")
    return programs
