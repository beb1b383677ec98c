"""`calotype train`: a recipe, a folder of data and a run folder; stage after stage, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from calotype.cascade.io import load_stage
from calotype.cascade.runtime import Runtime, choose_runtime
from calotype.cascade.stage import Stage
from calotype.config import Recipe
from calotype.errors import CalotypeError, UsageError
from calotype.training import resume
from calotype.training.checkpoint import read_tensors
from calotype.training.exports import without_adapters
from calotype.training.guards import Guards
from calotype.training.job import StageJob
from calotype.training.keeper import StageCheckpoints, versions
from calotype.training.lock import locked
from calotype.training.log import JsonLines
from calotype.training.preparation import Preparation, prepare_job
from calotype.training.progress import TrainingDisplay
from calotype.training.scalars import NoScalars, open_scalars
from calotype.training.signals import Stopped, StopRequest, stop_on_signals
from calotype.training.state import restore
from calotype.training.trainer import RunFiles, StageTrainer


@dataclass(frozen=True)
class RunOptions:
    """What `calotype train` is asked for beside recipe, data and run folder.

    Args:
        resume: go on with what lies in the run folder.
        images: length of each stage in pictures; None = the recipe's.
        seed: None = the recipe's.
        init: weights to start from: a file, a stage's folder, a cascade or a run.
        device: as torch names it; None chooses.
        dtype: of the network calls; None chooses.
        threads: None chooses.
        quiet: no progress.
        allow_inexact_resume: go on where an exact resume is not possible.
        guards: against numbers that are not finite and against spikes.
    """

    resume: bool = False
    images: int | None = None
    seed: int | None = None
    init: Path | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    quiet: bool = False
    allow_inexact_resume: bool = False
    guards: Guards = field(default_factory=Guards)


def run_recipe(recipe: Recipe, *, data: Path, out: Path, options: RunOptions) -> int:
    """Train a recipe's stages in turn.

    Args:
        recipe: what is trained.
        data: shards or a folder of pictures.
        out: run folder; made if missing, and empty unless `options.resume`.
        options: the rest.

    Returns:
        The exit code: 0 when finished, or after SIGTERM; 130 after Ctrl-C.

    Raises:
        UsageError: the options do not fit what is there.
        CalotypeError: training cannot go on.
    """
    if not options.resume:
        _check_init(recipe, options.init)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run folder {out}: {error.strerror}") from error
    with locked(out), stop_on_signals() as stop:
        if not options.resume:
            resume.clear_start(out)
        recipe = resume.with_options(recipe, images=options.images, seed=options.seed)
        return _Run(recipe, data, out, options).train(stop)


class _Run:
    """A recipe on its way through its stages."""

    def __init__(self, recipe: Recipe, data: Path, out: Path, options: RunOptions) -> None:
        self.out = out
        self.options = options
        self.start = resume.Start(None, {})
        self.init = resume.recorded_init(out, options.init)
        if options.resume:
            recipe = resume.recorded_recipe(out, recipe, images=options.images)
            self.start = resume.find_start(out, recipe, say=self.say)
            if self.start.path is None:
                self.say(f"no checkpoint to go on from in {out}: starting over")
                _check_init(recipe, self.init)
        self.recipe = recipe
        self.done: list[Stage] = []  # averaged, on their way into cascades
        self.data = data

    def say(self, text: str) -> None:
        """Tell the user something that is not an error."""
        print(text, flush=True)

    def train(self, stop: StopRequest) -> int:
        """Train from the start that was chosen; returns the exit code."""
        state = self.start.state
        if resume.is_finished(state, self.recipe):
            self.say(f"the run in {self.out} is finished: {state['images']} images")
            return 0
        runtime = self._runtime()
        torch.set_num_threads(runtime.threads)
        preparation = Preparation(self.data, self.out, runtime, self.options.quiet, stop)
        resume.record_recipe(self.out, self.recipe, init=self.init)
        if self.start.path is not None:
            self.say(f"going on from checkpoint {self.start.path.name}")
        first = int(state.get("stage", 0))
        self._load_earlier_stages(first)
        images = int(state.get("images", 0))
        with self._files() as files:
            for number in range(first, len(self.recipe.stages)):
                try:
                    job = self._prepare(preparation, number)
                except Stopped:
                    return self._stopped(images, stop)
                if not job.finished and not stop:
                    self._train_stage(job, files, stop, runtime)
                images = job.images
                if stop:
                    return self._stopped(images, stop)
                self.done.append(without_adapters(job.state.averaged_stage(), job.config.lora))
        self.say(f"finished: {images} images; draw with --model {self.out}")
        return 0

    def _runtime(self) -> Runtime:
        """As asked for, else as in the checkpoint, else chosen."""
        saved, options = self.start.state.get("runtime", {}), self.options
        runtime = choose_runtime(
            saved.get("device") if options.device is None else options.device,
            saved.get("dtype") if options.dtype is None else options.dtype,
            saved.get("threads") if options.threads is None else options.threads,
        )
        before = self.start.state.get("versions", {})
        if saved and (saved != runtime.to_dict() or before != versions()):
            self.say("device, dtype, threads or versions have changed: not the same bits from here")
        return runtime

    def _load_earlier_stages(self, first: int) -> None:
        for config in self.recipe.stages[:first]:
            assert self.start.path is not None
            folder = self.start.path / "cascade" / str(config.stage.resolution)
            self.done.append(load_stage(folder))

    def _prepare(self, preparation: Preparation, number: int) -> StageJob:
        """The job of a stage, gone on with from the checkpoint where it belongs to this stage."""
        start, config = self.start, self.recipe.stages[number]
        offset = sum(stage.total_images for stage in self.recipe.stages[:number])
        resumed = start.path is not None and start.state["stage"] == number
        init = None if resumed else self.init
        job = prepare_job(preparation, config, offset=offset, init=init, fit_text=not resumed)
        if resumed and start.path is not None:
            self._check_data(start.state, job)
            restore(job.state, read_tensors(start.path), start.state)
        return job

    def _check_data(self, state: dict[str, Any], job: StageJob) -> None:
        """The data must be what it was.

        Raises:
            CalotypeError: it is not, and an inexact resume is not allowed.
        """
        if state["data_fingerprint"] == job.fingerprint:
            return
        text = f"the data in {self.data} has changed since the checkpoint was written"
        if not self.options.allow_inexact_resume:
            raise CalotypeError(f"{text}; restore it, or add --allow-inexact-resume")
        self.say(f"{text}: going on, but not exactly")

    @contextmanager
    def _files(self) -> Iterator[RunFiles]:
        images = int(self.start.state.get("images", 0))
        scalars = open_scalars(self.out / resume.TENSORBOARD, images=images)
        if scalars is None:
            self.say("TensorBoard is not installed: no event files; pip install 'calotype[train]'")
        log, validation, skipped = (JsonLines(self.out / name) for name in resume.LOG_FILES)
        scalars = NoScalars() if scalars is None else scalars
        files = RunFiles(self.out, log, validation, skipped, scalars)
        try:
            yield files
        finally:
            files.close()

    def _train_stage(
        self, job: StageJob, files: RunFiles, stop: StopRequest, runtime: Runtime
    ) -> None:
        title = f"{self.recipe.name} {job.config.stage.resolution}px"
        ends, quiet = job.offset + job.config.total_images, self.options.quiet
        checkpoints = StageCheckpoints(
            self.out / "checkpoints", self.recipe, job, done=tuple(self.done), runtime=runtime
        )
        if self.start.path is not None and self.start.state["stage"] == len(self.done):
            checkpoints.latest = self.start.path
        with checkpoints, TrainingDisplay(title, ends, quiet=quiet) as display:
            trainer = StageTrainer(
                job,
                files,
                checkpoints=checkpoints,
                display=display,
                guards=self.options.guards,
            )
            trainer.train(stop)

    def _stopped(self, images: int, stop: StopRequest) -> int:
        self.say(f"stopped at {images} images; go on with --resume")
        return 0 if stop.exit_code is None else stop.exit_code


def _check_init(recipe: Recipe, init: Path | None) -> None:
    """Adapters of random weights would be of no use.

    Raises:
        UsageError: the recipe trains some, and there is nothing to start from.
    """
    if init is None and any(stage.lora is not None for stage in recipe.stages):
        raise UsageError(
            "got a recipe with lora and no weights to start from; add --init, e.g. --init default"
        )
