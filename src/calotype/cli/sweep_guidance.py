"""`calotype sweep-guidance`: classifier-free guidance and a CLIP's, compared as in GLIDE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from calotype.cli import evaluate_inputs as inputs
from calotype.cli import evaluate_options as own
from calotype.cli import options as shared
from calotype.cli import sample_options
from calotype.cli.data.ray import GpusPerWorker, Ray, gpus_of_worker
from calotype.cli.evaluate import watching
from calotype.cli.evaluate_measures import measure_options
from calotype.cli.options import check_seed
from calotype.cli.sweep import Source
from calotype.errors import UsageError
from calotype.generation.request import GuideRequest, Request

if TYPE_CHECKING:
    from calotype.evaluation.options import MeasureOptions
    from calotype.evaluation.samples.real import RealSuite
    from calotype.evaluation.sweep.guidance_found import GuidanceResults

_FEATURES = ("lite0", "clip")
_WEIGHTS, _SCALES, _STEPS, _SAMPLES = "1,1.5,2,3,5", "0,2,4,8,16,32", 24, 256
Judge = Annotated[
    Path | None,
    Option(
        help="CLIP that judges: trained apart from the guide, as a run of clip-emoji-judge is; "
        "the embedded one if not given.",
        metavar="RUN",
    ),
]
Guide = Annotated[
    str | None,
    Option(
        "--clip",
        help="CLIP that guides: a run of clip-emoji-noised or the like; the embedded one if not "
        "given.",
        metavar="RUN",
    ),
]
Data = Annotated[
    Path, Option(help="Real images with captions, which are sampled; what training takes.")
]
Weights = Annotated[str, Option(help="Weights of classifier-free guidance; 1 = off.")]
Scales = Annotated[str, Option(help="Scales of guidance by the CLIP, beside weight 1; 0 = off.")]
Samples = Annotated[int, Option(help="Samples of each point, of as many of the captions.")]
Split = Annotated[str | None, Option(help="Split of the data that is taken; all if not given.")]
Features = Annotated[
    list[str] | None,
    Option(
        "--features",
        help="What KID, precision and recall are of, as in evaluate; lite0, and clip, the embedded "
        "one, if not given. Can be repeated: the first is plotted.",
    ),
]
Steps = Annotated[int, Option(help="Steps of every point.")]


def sweep_guidance(
    source: Source,
    data: Data,
    out: own.OutFolder,
    clip: Guide = None,
    judge: Judge = None,
    weights: Weights = _WEIGHTS,
    scales: Scales = _SCALES,
    samples: Samples = _SAMPLES,
    form: sample_options.Form = None,
    steps: Steps = _STEPS,
    sampler: sample_options.Sampler = None,
    seed: shared.Seed = 0,
    split: Split = None,
    features: Features = None,
    cache: own.FeaturesRoot = None,
    workers: own.Workers = None,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    as_json: shared.Json = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Compare classifier-free guidance with guidance by a CLIP: GLIDE's comparison, of one base.

    All points sample the same captions from the same noise. What the guide says of samples stands
    beside what a judge says that did not guide, and beside what both say of real images. A command
    that was broken off goes on.
    """
    check_seed(seed)
    request = Request(
        model=None if source == "default" else source,
        steps=steps,
        sampler=sampler,
        clip=clip,
        guides=GuideRequest(clip_scale=1.0, form=form),
        device=device,
        dtype=dtype,
        threads=threads,
    )
    executor = inputs.executor_of(workers, ray, gpus_of_worker(gpus_per_worker, ray))
    from calotype.evaluation.sweep.guidance import GuidanceSweep, base_resolution, plan_points

    points = plan_points(_numbers("--weights", weights), _numbers("--scales", scales))
    side = base_resolution(request)
    real = _real_suite(data, samples, side=side, split=split)
    options = _measured(
        real, judge, side=side, data=data, split=split, features=features, cache=cache,
        device=device,
    )  # fmt: skip
    planned = GuidanceSweep(request, points, options, seed=seed)
    with watching(quiet=as_json) as watch:
        found = planned.run(out, real, executor=executor, watch=watch)
    if found is not None:
        _finish(found, out, as_json=as_json)


def _numbers(option: str, text: str) -> list[float]:
    """The numbers of a text such as "1,1.5,2".

    Raises:
        UsageError: there are others.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"got {option} {text!r:.80}; expected numbers, e.g. 1,1.5,2") from None


def _real_suite(data: Path, count: int, *, side: int, split: str | None) -> RealSuite:
    from calotype.emoji.captions import GRAMMAR
    from calotype.evaluation.samples.real import real_suite

    if count < 1:
        raise UsageError(f"got --samples {count}; expected at least 1")
    return real_suite(data, count, side=side, split=split, grammar=GRAMMAR)


def _measured(
    real: RealSuite, judge: Path | None, *, side: int, data: Path, split: str | None,
    features: Sequence[str] | None, cache: Path | None, device: str | None,
) -> MeasureOptions:  # fmt: skip
    """What is measured of every point; samples of the emoji set are looked up, too."""
    from calotype.emoji.found import found_check
    from calotype.evaluation.sweep.guidance import ANY
    from calotype.vision.clip import EMBEDDED_JUDGE, find_clip

    options = measure_options(
        inputs.Asked(real.suite), side=side, device=device, features=features or _FEATURES,
        clip=None, cache=cache, scorers=None, scorer_timeout=None, reference=data,
        reference_split=split, reference_images=None,
    )  # fmt: skip
    assert options.clip is not None
    check = found_check(data)
    return replace(
        options,
        judge=replace(options.clip, weights=find_clip(judge or EMBEDDED_JUDGE)),
        checks=None if check is None else {ANY: check},
    )


def _finish(found: GuidanceResults, out: Path, *, as_json: bool) -> None:
    from calotype.evaluation.report.figures import decimals, interval
    from calotype.evaluation.report.guidance_page import write_guidance_page
    from calotype.evaluation.samples import open_samples
    from calotype.evaluation.sweep.guidance import POINTS_FOLDER, REAL_FOLDER
    from calotype.evaluation.sweep.guidance_found import GUIDE, JUDGE

    names = [point.name for point in found.points]
    sets = {"real": open_samples(out / REAL_FOLDER)}
    sets |= {name: open_samples(out / POINTS_FOLDER / name) for name in names}
    write_guidance_page(out, found, sets)
    if as_json:
        verdict = {"adversarial": found.adversarial, "overrated": found.overrated}
        print(json.dumps({"page": str(out / "index.html"), **verdict}))
        return
    for name, numbers in (
        ("real images", found.real), *((point.name, point.numbers) for point in found.points)
    ):  # fmt: skip
        first = {number.metric: number for number in reversed(numbers)}
        texts = [
            f"{metric} {decimals(first[metric].value)} ({interval(first[metric])})"
            for metric in (GUIDE, JUDGE, "KID")
            if metric in first
        ]
        print(f"{name:12} {'  '.join(texts)}")
    for name, points in (("adversarial", found.adversarial), ("overrated", found.overrated)):
        print(f"{name}: {', '.join(points) or 'none'}")
    print(out / "index.html")
