"""What an evaluation measures, and with what: small, and noted in its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calotype.errors import UsageError
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.judging import Check
from calotype.evaluation.reference import Which
from calotype.evaluation.scorers import Scorer

GUIDES, JUDGES = "guide's ", "judge's "
"""Begin the names of the numbers of a guide, and of who judges it."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What is measured, and with what.

    Args:
        side: pixels that images are brought to before features.
        extractors: whose features the sets are compared by.
        clip: extractor of CLIP score and R-precision; None = neither.
        reference: real images; None = nothing that needs them.
        which: of them.
        training: images that copies are looked for among; None = they are not.
        alexnet: weights for LPIPS; None = no LPIPS.
        scorers: other people's programs.
        root: folder of features.
        checks: the suite's own rules, by category; None = it has none.
        guide: a CLIP that guided some of the sets, which scores captions, too; None = none.
        judge: a CLIP that is to say what the guide cannot; likewise.
    """

    side: int
    extractors: tuple[ExtractorSpec, ...]
    clip: ExtractorSpec | None = None
    reference: Path | None = None
    which: Which = field(default_factory=Which)
    training: Path | None = None
    alexnet: Path | None = None
    scorers: tuple[Scorer, ...] = ()
    root: Path = field(default_factory=Path)
    checks: Mapping[str, Check] | None = field(default=None, hash=False)
    guide: ExtractorSpec | None = None
    judge: ExtractorSpec | None = None

    @property
    def clips(self) -> list[tuple[str, ExtractorSpec]]:
        """All that score captions, after what the names of their numbers begin with."""
        named = (("", self.clip), (GUIDES, self.guide), (JUDGES, self.judge))
        return [(whose, spec) for whose, spec in named if spec is not None]

    def noted(self) -> dict[str, Any]:
        """What decides the numbers, for the results."""
        return {
            "side": self.side,
            "extractors": [_noted(spec) for spec in self.extractors],
            **{
                name: None if spec is None else _noted(spec)
                for name, spec in (
                    ("clip", self.clip),
                    ("guide", self.guide),
                    ("judge", self.judge),
                )
            },
            "reference": _path(self.reference),
            "reference_split": self.which.split,
            "most_reference": self.which.most,
            "reference_names": sorted(self.which.names) if self.which.names else None,
            "training": _path(self.training),
            "alexnet": _path(self.alexnet),
            "root": str(self.root),
            "scorers": [[scorer.name, *scorer.command] for scorer in self.scorers],
        }


def options_of(noted: Mapping[str, Any]) -> MeasureOptions:
    """What `noted` gave, of a file: without programs, which nobody's file may have run.

    Raises:
        UsageError: it is damaged, or of another version.
    """
    try:
        names = noted["reference_names"]
        return MeasureOptions(
            side=int(noted["side"]),
            extractors=tuple(_spec(pair) for pair in noted["extractors"]),
            clip=_spec_or_none(noted["clip"]),
            guide=_spec_or_none(noted.get("guide")),
            judge=_spec_or_none(noted.get("judge")),
            reference=_path_of(noted["reference"]),
            which=Which(
                noted["reference_split"],
                noted["most_reference"],
                None if names is None else frozenset(names),
            ),
            training=_path_of(noted["training"]),
            alexnet=_path_of(noted["alexnet"]),
            root=Path(noted["root"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"results do not say how to measure the same again ({reason:.100}); evaluate again"
        ) from error


def _spec(noted: Sequence[str | None]) -> ExtractorSpec:
    name, weights = noted
    return ExtractorSpec(str(name), _path_of(weights))


def _spec_or_none(noted: Sequence[str | None] | None) -> ExtractorSpec | None:
    return None if noted is None else _spec(noted)


def _path_of(noted: str | None) -> Path | None:
    return None if noted is None else Path(noted)


def _noted(spec: ExtractorSpec) -> list[str | None]:
    return [spec.name, _path(spec.weights)]


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
