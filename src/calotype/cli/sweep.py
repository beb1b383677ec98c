"""`calotype sweep`: sampling settings against each other, as the papers plot them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from calotype.cli import evaluate_inputs as inputs
from calotype.cli import evaluate_options as own
from calotype.cli import options as shared
from calotype.cli import sample_options
from calotype.cli.data.ray import GpusPerWorker, Ray, gpus_of_worker
from calotype.cli.evaluate import watching
from calotype.cli.evaluate_measures import measure_options
from calotype.cli.options import check_seed
from calotype.errors import UsageError
from calotype.generation.request import Request, parse_size

if TYPE_CHECKING:
    from calotype.evaluation.sweep.found import SweepResults


Source = Annotated[
    str, Argument(help="'default', a cascade folder or the folder of a training run.")
]
Preset = Annotated[
    str | None,
    Option(
        help="guidance, guidance-super-resolution, thresholding, aug_level, steps or sampler: the "
        "papers' grids."
    ),
]
Axes = Annotated[
    list[str] | None,
    Option(
        "--axis",
        help="RESOLUTION:SETTING=VALUE,..., e.g. 64:guidance_weight=1,1.5,2; 'thresholding' is "
        "none, static or dynamic. Again for more: every value with every other.",
    ),
]
WriteDefaults = Annotated[
    bool,
    Option(
        "--write-defaults",
        help="Make the chosen cell's settings the cascade folder's own, by a fixed rule.",
    ),
]


def sweep(
    source: Source,
    suite: own.SuiteName,
    out: own.OutFolder,
    preset: Preset = None,
    axis: Axes = None,
    write_defaults: WriteDefaults = False,
    reference: own.Reference = None,
    each: own.Each = 1,
    seed: shared.Seed = 0,
    prompts: own.Prompts = None,
    coco_list: own.CocoList = None,
    without_people: own.WithoutPeople = None,
    reference_split: own.ReferenceSplit = None,
    reference_images: own.ReferenceImages = None,
    features: own.Features = None,
    clip: own.ClipScore = None,
    side: own.Side = None,
    scorer: own.Scorers = None,
    scorer_timeout: own.ScorerTimeout = None,
    cache: own.FeaturesRoot = None,
    size: own.Size = None,
    width: sample_options.Width = None,
    height: sample_options.Height = None,
    variety: sample_options.Variety = None,
    class_name: sample_options.ClassName = None,
    stage_option: shared.StageOptions = None,
    negative: shared.Negative = None,
    lora: shared.Loras = None,
    workers: own.Workers = None,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    as_json: shared.Json = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Sample a suite with many settings, and plot what they do to fidelity and alignment.

    Cells share prompts, seeds and the images of all stages before the one that is tried.
    """
    check_seed(seed)
    if write_defaults and (source == "default" or not (Path(source) / "cascade.json").is_file()):
        raise UsageError(
            f"got --write-defaults for {source!r:.200}; expected a cascade folder of your own"
        )
    asked = inputs.read_named_suite(
        suite, prompts=prompts, coco_list=coco_list, without_people=without_people
    )
    request = Request(
        model=None if source == "default" else source,
        size=None if size is None else parse_size(size),
        width=width,
        height=height,
        variety=variety,
        class_name=class_name,
        stage_options=stage_option,
        negative=negative,
        loras=lora,
        device=device,
        dtype=dtype,
        threads=threads,
    )
    axes = inputs.read_axes(preset, axis, request)
    from calotype.evaluation.sweep.run import Sweep

    planned = Sweep(request, axes, asked.suite, each=each, seed=seed)
    options = measure_options(
        asked, side=min(inputs.LARGEST_SIDE, planned.side) if side is None else side, device=device,
        features=features, clip=clip, cache=cache, scorers=scorer, scorer_timeout=scorer_timeout,
        reference=reference, reference_split=reference_split, reference_images=reference_images,
    )  # fmt: skip
    executor = inputs.executor_of(workers, ray, gpus_of_worker(gpus_per_worker, ray))
    with watching(quiet=as_json) as watch:
        found = planned.run(out, options, executor=executor, watch=watch)
    if found is not None:
        _finish(found, out, Path(source) if write_defaults else None, as_json=as_json)


def _finish(found: SweepResults, out: Path, cascade: Path | None, *, as_json: bool) -> None:
    from calotype.evaluation.report.sweep_page import write_sweep_page
    from calotype.evaluation.sweep.found import write_defaults

    write_sweep_page(out, found)
    if cascade is not None:
        write_defaults(cascade, found)
    chosen = None if found.chosen is None else found.cells[found.chosen]
    if as_json:
        values = None if chosen is None else list(chosen.values)
        print(json.dumps({"page": str(out / "index.html"), "chosen": values}))
        return
    if chosen is not None:
        pairs = zip(found.axes, chosen.values, strict=True)
        text = ", ".join(f"{axis.resolution}:{axis.setting}={value}" for axis, value in pairs)
        print(f"{text}: {found.rule}")
    print(out / "index.html")
