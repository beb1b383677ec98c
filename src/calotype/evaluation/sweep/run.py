"""Sample and measure all cells of a sweep; what cells have upstream of them is sampled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calotype.errors import UsageError
from calotype.evaluation.beforehand import check_count, check_measurable
from calotype.evaluation.evaluate import SAMPLES_FOLDER, Watch
from calotype.evaluation.measure import measure, open_reference
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.results import Results, write_results
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.job import SampleJob, SetJob, sample_sets
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.samples.shard import SHARD_IMAGES
from calotype.evaluation.suites.suite import Suite
from calotype.evaluation.sweep.axes import Axis, Cell, cells_of
from calotype.evaluation.sweep.found import SweepCell, SweepResults, choose, write_sweep
from calotype.evaluation.sweep.plots import write_plots
from calotype.generation.cascade import Job, expected_recipe, open_generator, settle
from calotype.generation.executors import Executor, on_workers, wait_for_all
from calotype.generation.request import Request
from calotype.storage.files import make_folder

CELLS_FOLDER = "cells"
_PIXELS_A_SHARD = 2**26
"""Of all cells' finished images of a shard, which are held together: 200 MB."""


class Sweep:
    """A sweep, planned: every error comes before anything is sampled.

    Args:
        request: what is sampled with in every cell, and the model.
        axes: what is tried.
        suite: whose prompts are sampled in every cell, with the same seeds.
        each: images of every prompt.
        seed: of which all theirs are made.

    Raises:
        UsageError: an axis does not fit the model, or the images are chosen among several.
    """

    def __init__(
        self, request: Request, axes: Sequence[Axis], suite: Suite, *, each: int = 1, seed: int = 0
    ) -> None:
        if request.best_of is not None:
            raise UsageError("got --best-of for a sweep, whose cells share images; leave it out")
        last = max((axis.resolution for axis in axes), default=None)
        sides = (request.size, request.width, request.height)
        if sides == (None,) * 3 and last is not None:  # no finer than what is tried
            request = replace(request, size=last)
        self.axes, self.suite = tuple(axes), suite
        self.each, self.seed, self.threads = each, seed, request.threads
        base = settle(request)
        known = {r: s for r, s in base.sampling.items() if r <= base.stop_at}
        self.cells = cells_of(self.axes, known)
        self.jobs = [self._job(request, cell) for cell in self.cells]

    def _job(self, request: Request, cell: Cell) -> Job:
        options = [*(request.stage_options or ()), *cell.options(self.axes)]
        return settle(replace(request, stage_options=options))

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        job = self.jobs[0]
        return job.stop_at if job.size is None else min(job.size)

    def run(
        self,
        out: Path,
        options: MeasureOptions,
        *,
        executor: Executor | None = None,
        watch: Watch | None = None,
    ) -> SweepResults | None:
        """Sample, measure and write everything; a run that was broken off goes on.

        Args:
            out: folder; the samples of each cell lie in `out`/cells.
            options: what is measured, of every cell alike.
            executor: who works; None = this process.
            watch: who is told.

        Returns:
            What was found; None on torchrun's other ranks.

        Raises:
            UsageError: `out` holds another sweep.
            CalotypeError: something cannot be computed or written.
        """
        executor, watch = executor or Executor(), watch or Watch()
        self._check(options)
        make_folder(out)
        with executor.joined():
            reference = open_reference(options, executor)
            folders = self._sample(out, executor, watch)
            measured = []
            for number, folder in enumerate(folders):
                watch.say(f"cell {number + 1} of {len(folders)}: {folder.name}")
                samples = open_samples(folder / SAMPLES_FOLDER)
                found = measure(samples, options, reference=reference, executor=executor)
                if found is not None:
                    write_results(folder, found.results, found.scores)
                    measured.append(found.results)
        if not measured:
            return None
        job, cells = self.jobs[0], tuple(map(self._cell, range(len(measured)), measured))
        results = SweepResults(
            first=measured[0],
            axes=self.axes,
            resolutions=tuple(r for r in job.sampling if r <= job.stop_at),
            cells=cells,
            chosen=choose(cells),
        )
        write_sweep(out, results)
        write_plots(out, results)
        return results

    def _check(self, options: MeasureOptions) -> None:
        """Refuse what could not be measured before it is sampled."""
        check_count(len(self.suite.prompts) * self.each, options)
        check_measurable(options)

    def _cell(self, number: int, found: Results) -> SweepCell:
        job = self.jobs[number]
        stages = tuple(s for r, s in job.sampling.items() if r <= job.stop_at)
        return SweepCell(values=self.cells[number].values, stages=stages, numbers=found.numbers)

    def _sample(self, out: Path, executor: Executor, watch: Watch) -> list[Path]:
        """Sample all cells; their folders."""
        folders = [(out / CELLS_FOLDER / cell.folder(self.axes)).resolve() for cell in self.cells]
        jobs = self.jobs
        if not executor.alone:
            workers, gpus = executor.workers, executor.gpus
            jobs = [on_workers(job, workers, threads=self.threads, gpus=gpus) for job in jobs]
        sets, prompts = [], out / CELLS_FOLDER / "prompts.jsonl"
        for folder, job in zip(folders, jobs, strict=True):
            prompts = write_prompts(folder / SAMPLES_FOLDER, self.suite)
            sets.append(SetJob(folder / SAMPLES_FOLDER, job, expected_recipe(job, "", 0)))
        total = len(self.suite.prompts) * self.each
        most = max(1, _PIXELS_A_SHARD // (len(sets) * self.side**2))
        job_of_all = SampleJob(
            sets=tuple(sets),
            open=open_generator,
            prompts=prompts,
            total=total,
            each=self.each,
            seed=self.seed,
            shard_images=min(SHARD_IMAGES, most),
        )
        watch.say(f"sampling {total:,} images in each of {len(sets)} cells")
        watch.begin(total)
        sample_sets(
            job_of_all, self.suite, executor=executor, show=watch.show, on_shard=watch.advance
        )
        wait_for_all()
        return folders
