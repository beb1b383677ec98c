"""One command's work: sample a suite or take what is there, measure it, write it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.errors import UsageError
from calotype.evaluation.beforehand import check_count, check_measurable
from calotype.evaluation.measure import Measured, measure, open_reference
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.report.set_page import write_set_page
from calotype.evaluation.results import Number, write_results
from calotype.evaluation.samples import SampleSet, is_sample_set, open_samples
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.samples.job import SampleJob, SetJob, sample_sets
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.suites.suite import Suite
from calotype.generation.executors import Executor, wait_for_all
from calotype.generation.generator import ImageGenerator
from calotype.launch import launched_place
from calotype.storage.files import make_folder

if TYPE_CHECKING:
    from calotype.cascade.results import Preview

SAMPLES_FOLDER = "samples"


@dataclass(frozen=True)
class Sampler:
    """What samples, and how much.

    Args:
        open: loads it; a function of a module.
        settings: as `open` takes them.
        common: recipe of its images, but for what each has of its own.
        each: images of each prompt.
        seed: of which all theirs are made.
        numbers: of the model itself, computed when they are asked for; None = there are none.
    """

    open: Callable[[Any], ImageGenerator[Any]]
    settings: Any
    common: dict[str, Any]
    each: int = 1
    seed: int = 0
    numbers: Callable[[], Sequence[Number]] | None = None


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told how far the work is.

    Args:
        say: a line of what is done now.
        show: every preview, where this process samples.
        begin: the number of images that are to be sampled.
        advance: images that are there.
    """

    say: Callable[[str], None] = lambda text: None
    show: Callable[[Preview], None] = lambda preview: None
    begin: Callable[[int], None] = lambda total: None
    advance: Callable[[int], None] = lambda images: None


def evaluate(
    source: Sampler | Path,
    suite: Suite,
    out: Path,
    options: MeasureOptions,
    *,
    executor: Executor | None = None,
    watch: Watch | None = None,
) -> Measured | None:
    """Evaluate a model or images, and write `results.json`, `scores.parquet` and `index.html`.

    Args:
        source: a model, or the folder of a sample set, of another evaluation, or of images.
        suite: whose prompts they are of.
        out: folder; what is there of the same work is kept.
        options: what is measured.
        executor: who works; None = this process.
        watch: who is told.

    Returns:
        What was found; None on torchrun's other ranks.

    Raises:
        UsageError: something does not fit; nothing was written over.
        CalotypeError: an image, a feature or a file cannot be made.
    """
    executor, watch = executor or Executor(), watch or Watch()
    if isinstance(source, Sampler):
        check_count(len(suite.prompts) * source.each, options)
    check_measurable(options)
    make_folder(out)
    with executor.joined():
        if (reference := open_reference(options, executor)) is not None:
            reference.prepare(watch.say)
        samples = _samples(source, suite, out, executor=executor, watch=watch)
        check_count(len(samples), options)
        measured = measure(
            samples, options, reference=reference, executor=executor, say=watch.say, folder=out
        )
    if measured is not None:
        if isinstance(source, Sampler) and source.numbers is not None:
            watch.say("measuring the model's losses by noise level")
            numbers = (*measured.results.numbers, *source.numbers())
            measured = replace(measured, results=replace(measured.results, numbers=numbers))
        write_results(out, measured.results, measured.scores)
        write_set_page(out, measured.results, measured.scores, samples)
    return measured


def _samples(
    source: Sampler | Path, suite: Suite, out: Path, *, executor: Executor, watch: Watch
) -> SampleSet:
    """What is there, or what is sampled."""
    if isinstance(source, Sampler):
        sample_suite(source, suite, out, executor=executor, watch=watch)
    elif launched_place().rank == 0:
        _taken(source, suite, out / SAMPLES_FOLDER, watch)
    wait_for_all()
    return _opened(source, suite, out)


def sample_suite(
    source: Sampler, suite: Suite, out: Path, *, executor: Executor, watch: Watch
) -> None:
    """Sample a suite into the folder `samples` of an evaluation; what is there is kept.

    Raises:
        UsageError: the folder holds other samples.
        CalotypeError: an image cannot be made or written.
    """
    folder = (out / SAMPLES_FOLDER).resolve()
    total = len(suite.prompts) * source.each
    job = SampleJob(
        sets=(SetJob(folder, source.settings, source.common),),
        open=source.open,
        prompts=write_prompts(folder, suite),
        total=total,
        each=source.each,
        seed=source.seed,
    )
    told = "" if job.captioned else ", which a model without text is not told"
    watch.say(f"sampling {total:,} images of {len(suite.prompts):,} prompts{told}")
    watch.begin(total)
    sample_sets(job, suite, executor=executor, show=watch.show, on_shard=watch.advance)


def _taken(source: Path, suite: Suite, folder: Path, watch: Watch) -> None:
    """Images that are there: a sample set stays where it is, others are read into one."""
    if not is_sample_set(source):
        import_samples(source, suite, folder, say=watch.say)
        write_prompts(folder, suite)


def _opened(source: Sampler | Path, suite: Suite, out: Path) -> SampleSet:
    """The sample set, of the prompts that are asked for."""
    there = isinstance(source, Path) and is_sample_set(source)
    samples = open_samples(source if there and isinstance(source, Path) else out / SAMPLES_FOLDER)
    known = {prompt.id for prompt in suite.prompts}
    other = next((sample for sample in samples.samples if sample.prompt not in known), None)
    if samples.manifest.suite.sha256 != suite.sha256 or other is not None:
        raise UsageError(
            f"{samples.folder} holds samples of the suite {samples.manifest.suite.name!r:.80}; got "
            f"{suite.name!r:.80}: give --suite what they are of, or -o another folder"
        )
    return samples
