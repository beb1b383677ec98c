"""All numbers of a sample set, from features that are computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
    COLOURS,
    CaptionExtractor,
    Classifier,
    Extractor,
    ExtractorSpec,
)
from calotype.evaluation.features.mapped import MappedRows
from calotype.evaluation.judging import (
    add_alignment,
    add_checks,
    caption_embeddings,
    marks_of_judge,
)
from calotype.evaluation.metrics.frechet import fit_gaussian
from calotype.evaluation.metrics.lpips import load_lpips
from calotype.evaluation.metrics.manifold import reference_balls
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.pixel_numbers import (
    add_equal_looks,
    add_paired,
    colour_number,
    grid_numbers,
    lpips_number,
)
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
from calotype.evaluation.scorers import score_samples
from calotype.generation.executors import Executor
from calotype.launch import launched_place


@dataclass(frozen=True)
class Measured:
    """The results of a set, and the scores of each of its samples."""

    results: Results
    scores: Scores


class FeaturesOf:
    """Features of images by any extractor, computed when first asked for, by all who work.

    All of torchrun's ranks must ask for the same; what was asked for, one may ask for again.
    """

    def __init__(self, images: ImageList, options: MeasureOptions, executor: Executor) -> None:
        self.images = images
        self._options, self._executor = options, executor
        self._found: dict[ExtractorSpec, MappedRows] = {}

    def compute(
        self, specs: Iterable[ExtractorSpec], say: Callable[[str], None], what: str = "images"
    ) -> None:
        """By several extractors, in one go; `say` is told, if there is anything to do."""
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._found]
        if missing:
            names = ", ".join(spec.name for spec in missing)
            say(f"features of {len(self.images):,} {what}: {names}")
            stored = image_features(
                self.images, missing, side=self._options.side, root=self._options.root,
                executor=self._executor,
            )  # fmt: skip
            self._found |= {spec: features.rows() for spec, features in stored.items()}

    def __call__(self, spec: ExtractorSpec) -> MappedRows:
        """Of all images, (N, D) float32."""
        self.compute([spec], lambda text: None)
        return self._found[spec]


class Reference:
    """Real images, and what many sample sets are compared with, each made when first asked for."""

    def __init__(self, images: ImageList, options: MeasureOptions, executor: Executor) -> None:
        self.images = images
        self.features = FeaturesOf(images, options, executor)
        self._specs = (*options.extractors, _COLOURS)
        self._real: dict[ExtractorSpec, RealFeatures] = {}

    def prepare(self, say: Callable[[str], None]) -> None:
        """Compute all features: what is wrong with an image is known before samples are made."""
        self.features.compute(self._specs, say, "real images")

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
    folder: Path | None = None,
) -> Measured | None:
    """Measure a sample set; under torchrun all ranks compute features, and rank 0 has the numbers.

    Args:
        samples: the set.
        options: what is measured.
        reference: of `open_reference`.
        executor: who computes features; None = this process.
        say: told what is measured.
        folder: of the evaluation, where the scores of programs are kept; None = the one around the
            set's.

    Raises:
        UsageError: sets that cannot be compared, or images that cannot be read.
        CalotypeError: features or scores cannot be computed.
    """
    measuring = _Measuring(samples, options, reference, executor or Executor(), say)
    measuring.compute_features()
    if launched_place().rank > 0:
        return None
    return measuring.measured(samples.folder.parent if folder is None else folder)


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
        self.reference, self.say = reference, say
        self._sampled = FeaturesOf(sampled_images(samples), options, executor)
        self._training: FeaturesOf | None = None
        if options.training is not None:
            real = real_images(options.training, side=options.side, which=Which("train"))
            self._training = FeaturesOf(real, options, executor)
        self.rows = Rows(samples.samples, samples.manifest.each)
        self.found = Found(Scores(self.rows.samples, {}))
        self.extractors: dict[str, Extractor] = {}

    def compute_features(self) -> None:
        """What all processes do together."""
        options = self.options
        colours = () if self.reference is None else (_COLOURS,)
        specs = (*options.extractors, *(spec for _, spec in options.clips), *colours)
        self._sampled.compute(specs, self.say, "samples")
        if self._training is not None:
            self._training.compute(options.extractors, self.say, "training images")
        if self.reference is not None:
            self.reference.prepare(self.say)

    def measured(self, folder: Path) -> Measured:
        """What one process does with them; scores of programs are kept in `folder`."""
        checks = self.options.checks
        left: dict[str, str] = {}
        for spec in self.options.extractors:
            self._compare(spec)
        self._add_pixels()
        for whose, spec in self.options.clips:
            self._align(spec, whose)
        for scorer in self.options.scorers:
            self.say(f"scoring by {scorer.name}")
            place = folder / "scores"
            scores = score_samples(self.set, scorer, place, on_shard=lambda images: None)
            add_mean(self.found, self.rows, scorer.name, torch.tensor(scores, dtype=torch.float64))
        if checks is not None:
            self.say("checking samples by the suite's own rules")
            left = add_checks(self.found, self.set, self.rows, checks)
        return Measured(self._results(left), self.found.scores)

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
            found, count = self.reference.real(spec), len(self.reference.images)
            name = fid_name(self.set.manifest, extractor.name, self.options.side, real=count)
            numbers += distance_numbers(sampled, found, self.rows, facts, name=name)
        if isinstance(extractor, Classifier):
            numbers.append(score_number(sampled, extractor, facts))
        numbers += diversity_numbers(sampled, self.rows, facts)
        if self._training is not None:
            add_copies(self.found, sampled, self._training(spec), self.rows, facts)

    def _add_pixels(self) -> None:
        """What needs no network, and LPIPS."""
        found, rows, side = self.found, self.rows, self.options.side
        self.say("comparing pixels")
        found.numbers += grid_numbers(self.set)
        if self.reference is not None:
            real = self.reference.features(_COLOURS)
            found.numbers.append(colour_number(self._sampled(_COLOURS), real, {"side": side}))
            add_paired(found, self.set, rows, self.reference.images, side=side)
        if self._training is not None:
            add_equal_looks(found, self.set, rows, self._training.images, side=side)
        if self.options.alexnet is not None and len(set(rows.prompts)) < len(rows):
            lpips = load_lpips(self.options.alexnet)
            found.numbers.append(lpips_number(self.set, rows, lpips, side=side))

    def _align(self, spec: ExtractorSpec, whose: str) -> None:
        extractor, facts = self._loaded(spec)
        if not isinstance(extractor, CaptionExtractor):
            raise UsageError(f"got {spec.name} to score captions with; expected a CLIP")
        self.say(f"scoring captions by {extractor.name}")
        captions = caption_embeddings(self.set.suite, extractor, root=self.options.root)
        facts["notes"] = marks_of_judge(self.set.manifest, spec)
        images = self._sampled(spec)
        add_alignment(self.found, images, self.rows, captions, facts=facts, whose=whose)

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


_COLOURS = ExtractorSpec(COLOURS)
