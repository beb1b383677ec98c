"""GLIDE's comparison: weights of classifier-free guidance against scales of guidance by a CLIP.

Both are of one base, from the same noise and captions, whose real images are known. What the guide
says of samples is compared with what it says of those, and with what a judge says that did not
guide: where the guide finds samples to fit better than real images do, and the judge does not, the
samples fool the guide.

Reference: Nichol et al. 2021, sections 2.3 and 5.1, arXiv:2112.10741.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from calotype.errors import UsageError
from calotype.evaluation.beforehand import check_count, check_measurable
from calotype.evaluation.evaluate import SAMPLES_FOLDER, Sampler, Watch, sample_suite
from calotype.evaluation.measure import Measured, Reference, measure, open_reference
from calotype.evaluation.metrics.intervals import clustered_fraction
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.report.set_page import write_set_page
from calotype.evaluation.results import CHECKED, number_of, write_results
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.real import RealSuite, write_real_samples
from calotype.evaluation.sweep.guidance_found import (
    FOUND,
    GuidanceResults,
    Point,
    guidance_results,
    write_guidance,
)
from calotype.generation.cascade import Job, expected_recipe, open_generator, settle
from calotype.generation.executors import Executor, on_workers, wait_for_all
from calotype.generation.request import GuideRequest, Request
from calotype.launch import launched_place
from calotype.storage.files import make_folder
from calotype.vision.clip import find_clip, read_clip_file

POINTS_FOLDER, REAL_FOLDER = "points", "real"
ANY = ""
"""Category of the rule that finds what samples show: prompts of real images have none."""


@dataclass(frozen=True)
class _Work:
    executor: Executor
    watch: Watch
    reference: Reference | None


def plan_points(weights: Sequence[float], scales: Sequence[float]) -> tuple[Point, ...]:
    """The unguided point, those of all other weights, and those of all scales.

    Raises:
        UsageError: a value comes twice or is out of range, or there is nothing to compare.
    """
    points = [Point()]
    points += [Point(weight=weight) for weight in weights if weight != 1]
    points += [Point(scale=scale) for scale in scales if scale != 0]
    names = [point.name for point in points]
    for what, values, least in (("--weights", weights, "0"), ("--scales", scales, "0 (off)")):
        if any(not 0 <= value < float("inf") for value in values):
            raise UsageError(f"got {what} {_joined(values)}; expected numbers of at least {least}")
    if len(set(names)) < len(names):
        raise UsageError(
            f"got --weights {_joined(weights)} and --scales {_joined(scales)}; expected each once"
        )
    if not any(point.scale > 0 for point in points):
        raise UsageError(
            f"got --scales {_joined(scales)}; expected at least one above 0, that the guide guides "
            "with"
        )
    return tuple(points)


def _joined(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def base_resolution(request: Request) -> int:
    """Side of the images that the base of the request's model samples.

    Raises:
        UsageError: there is no such model.
    """
    return min(settle(_bare(request)).sampling)


def _bare(request: Request) -> Request:
    return replace(request, clip=None, guides=GuideRequest())


def _start(request: Request) -> dict[str, Any]:
    """Where guided points start, and their steps: all are to have these; see `Request`."""
    base = next(iter(settle(request).sampling.values()))
    return {"variety": base.variety, "steps": base.steps} if base.start == "draft" else {}


class GuidanceSweep:
    """The comparison, planned: every error comes before anything is sampled.

    Args:
        request: the base, with the CLIP that guides and the form of guidance; all points sample
            with its settings, but for how they are guided.
        points: how; the first is unguided.
        options: what is measured, with a judge; the guide is the one that the request names.
        seed: of which all seeds are made.

    Raises:
        UsageError: the guide does not fit the base, or one CLIP is to be two of guide, judge and
            features.
    """

    def __init__(
        self, request: Request, points: Sequence[Point], options: MeasureOptions, *, seed: int = 0
    ) -> None:
        self.points, self.seed, self.threads = tuple(points), seed, request.threads
        self.form = request.guides.form
        self.resolution = base_resolution(request)
        bare = replace(_bare(request), size=self.resolution, **_start(request))
        self.jobs = []
        for point in self.points:
            own = replace(bare, guidance=point.weight)
            if point.scale > 0:
                guides = GuideRequest(clip_scale=point.scale, form=self.form)
                own = replace(own, clip=request.clip, guides=guides)
            self.jobs.append(settle(own))
        guide = next(job.guides[0] for job in self.jobs if job.guides)
        assert options.judge is not None
        self.options = replace(options, guide=replace(options.judge, weights=guide.folder))
        self._check_apart()

    def _check_apart(self) -> None:
        """Refuse a judge that guided, and features of the guide or of the judge."""
        options = self.options
        assert options.guide is not None and options.judge is not None
        guide, judge = (
            read_clip_file(find_clip(spec.weights)) for spec in (options.guide, options.judge)
        )
        if judge.sha256 == guide.sha256:
            raise UsageError(
                f"got the CLIP {guide.name!r:.80} ({guide.sha256:.12}) as guide and as judge; "
                "expected a judge that was trained apart, such as a run of: train clip-emoji-judge"
            )
        features = (spec for spec in options.extractors if spec.name.startswith("clip"))
        for spec in filter(None, (options.clip, *features)):
            other = read_clip_file(find_clip(spec.weights))
            if other.sha256 in (guide.sha256, judge.sha256):
                role = "guide" if other.sha256 == guide.sha256 else "judge"
                raise UsageError(
                    f"got the CLIP {other.name!r:.80} ({other.sha256:.12}) as {role} and for "
                    "features; expected features that neither used: --features NAME=FOLDER"
                )

    def run(
        self,
        out: Path,
        real: RealSuite,
        *,
        executor: Executor | None = None,
        watch: Watch | None = None,
    ) -> GuidanceResults | None:
        """Sample and measure point by point; a run that was broken off goes on.

        Args:
            out: folder; each point is an evaluation in `out`/points, and so are the real images.
            real: whose captions are sampled.
            executor: who works; None = this process.
            watch: who is told.

        Returns:
            What was found; None on torchrun's other ranks.

        Raises:
            UsageError: `out` holds another comparison.
            CalotypeError: something cannot be computed or written.
        """
        executor, watch = executor or Executor(), watch or Watch()
        check_count(len(real.suite.prompts), self.options)
        check_measurable(self.options)
        make_folder(out)
        with executor.joined():
            reference = open_reference(self.options, executor)
            if reference is not None:
                reference.prepare(watch.say)
            work = _Work(executor, watch, reference)
            there = self._real(out / REAL_FOLDER, real, work)
            found = [self._point(n, out, real, work) for n in range(len(self.points))]
        measured = [one for one in found if one is not None]
        if there is None or not measured:
            return None
        results = guidance_results(self.points, measured, there, form=self.form or "score")
        write_guidance(out, results)
        return results

    def _real(self, folder: Path, real: RealSuite, work: _Work) -> Measured | None:
        """What guide and judge say of the real images, which are no samples."""
        work.watch.say(f"scoring {len(real.images):,} real images")
        if launched_place().rank == 0:
            write_real_samples(folder / SAMPLES_FOLDER, real, self.resolution)
        wait_for_all()
        options = replace(self.options, reference=None, extractors=())
        return _written(folder, options, replace(work, reference=None))

    def _point(self, number: int, out: Path, real: RealSuite, work: _Work) -> Measured | None:
        """Sample one point, and measure it."""
        point, job, executor = self.points[number], self.jobs[number], work.executor
        folder = out / POINTS_FOLDER / point.name
        work.watch.say(f"point {number + 1} of {len(self.points)}: {point.name}")
        source = Sampler(open_generator, job, expected_recipe(job, "", 0), seed=self.seed)
        source = replace(source, settings=self._on_workers(job, executor))
        sample_suite(source, real.suite, folder, executor=executor, watch=work.watch)
        wait_for_all()
        return _written(folder, self.options, work)

    def _on_workers(self, job: Job, executor: Executor) -> Job:
        if executor.alone:
            return job
        return on_workers(job, executor.workers, threads=self.threads, gpus=executor.gpus)


def _written(folder: Path, options: MeasureOptions, work: _Work) -> Measured | None:
    """Measure the samples in a folder, and write it as an evaluation."""
    samples = open_samples(folder)
    # In this process: so few images are not worth starting others for.
    measured = measure(
        samples, options, reference=work.reference, say=work.watch.say, folder=folder
    )
    if measured is None:
        return None
    right = measured.scores.columns.get(CHECKED)
    if right is not None:
        prompts = [sample.prompt for sample in measured.scores.samples]
        estimate = clustered_fraction(torch.from_numpy(right) == 1, prompts)
        number = number_of(estimate, FOUND, higher_is_better=True)
        numbers = (*measured.results.numbers, number)
        measured = replace(measured, results=replace(measured.results, numbers=numbers))
    write_results(folder, measured.results, measured.scores)
    write_set_page(folder, measured.results, measured.scores, samples)
    return measured
