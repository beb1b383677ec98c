"""All numbers of a sample set, from features that are computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype import __version__
from calotype.errors import UsageError
from calotype.evaluation.distances import (
    RealFeatures,
    add_copies,
    cmmd_number,
    distance_numbers,
    diversity_numbers,
    fid_name,
    score_number,
)
from calotype.evaluation.features.extractor import (
    CaptionExtractor,
    Classifier,
    Extractor,
    ExtractorSpec,
)
from calotype.evaluation.judging import (
    Check,
    add_alignment,
    add_checks,
    caption_embeddings,
    marks_of_judge,
)
from calotype.evaluation.metrics.frechet import fit_gaussian
from calotype.evaluation.metrics.manifold import reference_balls
from calotype.evaluation.reference import (
    ImageList,
    Which,
    image_features,
    real_images,
    sampled_images,
)
from calotype.evaluation.results import ExtractorNote, ReferenceNote, Results, Scores
from calotype.evaluation.rows import Found, Rows, add_mean
from calotype.evaluation.samples import SampleSet
from calotype.evaluation.scorers import Scorer, score_samples
from calotype.generation.executors import Executor
from calotype.launch import launched_place


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
        scorers: other people's programs.
        root: folder of features.
        checks: the suite's own rules, by category; None = it has none.
    """

    side: int
    extractors: tuple[ExtractorSpec, ...]
    clip: ExtractorSpec | None = None
    reference: Path | None = None
    which: Which = field(default_factory=Which)
    training: Path | None = None
    scorers: tuple[Scorer, ...] = ()
    root: Path = field(default_factory=Path)
    checks: Mapping[str, Check] | None = field(default=None, hash=False)

    def noted(self) -> dict[str, Any]:
        """What decides the numbers, for the results."""
        return {
            "side": self.side,
            "extractors": [_noted(spec) for spec in self.extractors],
            "clip": None if self.clip is None else _noted(self.clip),
            "reference": None if self.reference is None else str(self.reference.resolve()),
            "reference_split": self.which.split,
            "most_reference": self.which.most,
            "reference_names": sorted(self.which.names) if self.which.names else None,
            "root": str(self.root),
            "scorers": [[scorer.name, *scorer.command] for scorer in self.scorers],
        }


def _noted(spec: ExtractorSpec) -> list[str | None]:
    return [spec.name, None if spec.weights is None else str(spec.weights)]


@dataclass(frozen=True)
class Measured:
    """The results of a set, and the scores of each of its samples."""

    results: Results
    scores: Scores


class Reference:
    """Real images, and what many sample sets are compared with, each made when first asked for."""

    def __init__(self, images: ImageList, options: MeasureOptions, executor: Executor) -> None:
        self.images = images
        self._options, self._executor = options, executor
        self._features: dict[ExtractorSpec, Tensor] = {}
        self._real: dict[ExtractorSpec, RealFeatures] = {}

    def features(self, spec: ExtractorSpec) -> Tensor:
        """Of all images, (M, D)."""
        if spec not in self._features:
            self._features[spec] = _features(self.images, spec, self._options, self._executor)
        return self._features[spec]

    def real(self, spec: ExtractorSpec) -> RealFeatures:
        """Of one extractor."""
        if spec not in self._real:
            features = self.features(spec)
            found = RealFeatures(features, fit_gaussian(features), reference_balls(features))
            self._real[spec] = found
        return self._real[spec]


def open_reference(options: MeasureOptions, executor: Executor) -> Reference | None:
    """The reference that the options name, if any.

    Raises:
        UsageError: there are no images.
    """
    if options.reference is None:
        return None
    images = real_images(options.reference, side=options.side, which=options.which)
    return Reference(images, options, executor)


def measure(
    samples: SampleSet,
    options: MeasureOptions,
    *,
    reference: Reference | None = None,
    executor: Executor | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Measured | None:
    """Measure a sample set; under torchrun all ranks compute features, and rank 0 has the numbers.

    Args:
        samples: the set.
        options: what is measured.
        reference: of `open_reference`.
        executor: who computes features; None = this process.
        say: told what is measured.

    Raises:
        UsageError: sets that cannot be compared, or images that cannot be read.
        CalotypeError: features or scores cannot be computed.
    """
    measuring = _Measuring(samples, options, reference, executor or Executor(), say)
    measuring.compute_features()
    return None if launched_place().rank > 0 else measuring.measured()


class _Measuring:
    def __init__(
        self,
        samples: SampleSet,
        options: MeasureOptions,
        reference: Reference | None,
        executor: Executor,
        say: Callable[[str], None],
    ) -> None:
        self.set, self.options = samples, options
        self.reference, self.executor, self.say = reference, executor, say
        self.images = sampled_images(samples)
        self.rows = Rows(samples.samples, samples.manifest.each)
        self.found = Found(Scores(self.rows.samples, {}))
        self.extractors: dict[str, Extractor] = {}

    def compute_features(self) -> None:
        """What all processes do together."""
        options = self.options
        specs = dict.fromkeys([*options.extractors, *filter(None, [options.clip])])
        for spec in specs:
            self.say(f"features of {len(self.set):,} samples: {spec.name}")
            self._sampled(spec)
            if spec not in options.extractors:
                continue
            if self.reference is not None:
                self.say(f"features of {len(self.reference.images):,} real images: {spec.name}")
                self.reference.features(spec)
            if options.training is not None:
                self.say(f"features of the training images in {options.training}: {spec.name}")
                self._training(spec, options.training)

    def measured(self) -> Measured:
        """What one process does with them."""
        checks = self.options.checks
        left: dict[str, str] = {}
        for spec in self.options.extractors:
            self._compare(spec)
        if self.options.clip is not None:
            self._align(self.options.clip)
        for scorer in self.options.scorers:
            self.say(f"scoring by {scorer.name}")
            folder = self.set.folder.parent / "scores"
            scores = score_samples(self.set, scorer, folder, on_shard=lambda images: None)
            add_mean(self.found, self.rows, scorer.name, torch.tensor(scores, dtype=torch.float64))
        if checks is not None:
            self.say("checking samples by the suite's own rules")
            left = add_checks(self.found, self.set, self.rows, checks)
        return Measured(self._results(left), self.found.scores)

    def _sampled(self, spec: ExtractorSpec) -> Tensor:
        return _features(self.images, spec, self.options, self.executor)

    def _training(self, spec: ExtractorSpec, path: Path) -> Tensor:
        images = real_images(path, side=self.options.side, which=Which(split="train"))
        return _features(images, spec, self.options, self.executor)

    def _loaded(self, spec: ExtractorSpec) -> tuple[Extractor, dict[str, Any]]:
        """An extractor, and what the numbers of it say of themselves."""
        extractor = spec.load()
        self.extractors[extractor.fingerprint] = extractor
        return extractor, {"features": extractor.name, "side": self.options.side}

    def _compare(self, spec: ExtractorSpec) -> None:
        """What one extractor's features say of the set, and of it and the reference."""
        extractor, facts = self._loaded(spec)
        self.say(f"comparing by {extractor.name}")
        sampled, numbers = self._sampled(spec), self.found.numbers
        if spec.name == "clip-cmmd":
            if self.reference is not None:
                real = self.reference.features(spec)
                numbers.append(cmmd_number(sampled, real, self.rows, facts))
            return
        if self.reference is not None:
            name = fid_name(self.set.manifest, extractor.name, self.options.side)
            found = self.reference.real(spec)
            numbers += distance_numbers(sampled, found, self.rows, facts, name=name)
        if isinstance(extractor, Classifier):
            numbers.append(score_number(extractor.logits(sampled), facts))
        numbers += diversity_numbers(sampled, self.rows, facts)
        if self.options.training is not None:
            training = self._training(spec, self.options.training)
            add_copies(self.found, sampled, training, self.rows, facts)

    def _align(self, spec: ExtractorSpec) -> None:
        extractor, _ = self._loaded(spec)
        if not isinstance(extractor, CaptionExtractor):
            raise UsageError(f"got {spec.name} to score captions with; expected a CLIP")
        self.say(f"scoring captions by {extractor.name}")
        captions = caption_embeddings(self.set.suite, extractor, root=self.options.root)
        notes = marks_of_judge(self.set.manifest, spec)
        facts: dict[str, Any] = {"side": self.options.side, "notes": notes}
        add_alignment(self.found, self._sampled(spec), extractor, self.rows, captions, facts)

    def _results(self, left: Mapping[str, str]) -> Results:
        options, reference = self.options, None
        if self.reference is not None and options.reference is not None:
            reference = ReferenceNote(
                name=options.reference.resolve().name,
                fingerprint=self.reference.images.fingerprint,
                count=len(self.reference.images),
                split=options.which.split,
            )
        return Results(
            samples=self.set.manifest,
            side=options.side,
            reference=reference,
            extractors=tuple(
                ExtractorNote(name=one.name, fingerprint=key, description=one.description)
                for key, one in self.extractors.items()
            ),
            numbers=tuple(self.found.numbers),
            options={**options.noted(), "samples": str(self.set.folder.resolve())},
            version=__version__,
            left_to_people=left,
        )


def _features(
    images: ImageList, spec: ExtractorSpec, options: MeasureOptions, executor: Executor
) -> Tensor:
    """Of all images, (N, D) float32."""
    extractor = spec.load()
    stored = image_features(
        images, extractor, spec, side=options.side, root=options.root, executor=executor
    )
    return stored.tensor()
