"""`calotype train`: a recipe, a folder of data and a run folder; stage after stage, resumable."""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calotype.config.recipe import Recipe, TrainConfig
from calotype.data.source import SourceReport
from calotype.errors import CalotypeError, UsageError
from calotype.runtime import Runtime, choose_runtime
from calotype.storage.files import write_file
from calotype.training import resume, run_folder
from calotype.training.checkpoint_manager import CheckpointManager, load_state, versions
from calotype.training.distributed import ALONE, Group, OtherProcessFailed, open_group
from calotype.training.guards import Guards, check_skipped
from calotype.training.job import Job
from calotype.training.lock import locked
from calotype.training.preparation import Preparation
from calotype.training.progress import TrainingDisplay
from calotype.training.run_files import RunFiles, open_files, stage_runs
from calotype.training.signals import Stopped, StopRequest, stop_on_signals
from calotype.training.stream import check_batches
from calotype.training.task import TaskFactory, TaskStart
from calotype.training.trainer import Trainer


@dataclass(frozen=True)
class RunOptions:
    """What `calotype train` is asked for beside recipe, data and run folder.

    Args:
        resume: go on with what lies in the run folder.
        images: length of each stage in images; None = the recipe's.
        seed: None = the recipe's.
        init: weights to start from: a file, a stage's folder, a cascade or a run.
        device: as torch names it; None chooses.
        dtype: of the network calls; None chooses.
        threads: None chooses.
        quiet: no progress.
        allow_inexact_resume: go on where an exact resume is not possible.
        start_over: with `resume`, begin anew where no checkpoint can be gone on from; the old run's
            files are moved beside.
        sharded: with several processes, spread each stage over them; else each has a copy.
        guards: against numbers that are not finite and against spikes.
        only_draft: train the draft of the base, write a checkpoint, and end before diffusion.
        missing_captions: train although the captions of the data are mostly lost.
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
    start_over: bool = False
    sharded: bool = False
    guards: Guards = field(default_factory=Guards)
    only_draft: bool = False
    missing_captions: bool = False


def run_recipe(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    options: RunOptions,
    tasks: TaskFactory,
    group: Group | None = None,
) -> int:
    """Train a recipe's stages in turn.

    Processes that `torchrun` has started train each stage together, and all call this.

    Args:
        recipe: what is trained.
        data: shards or a folder of images.
        out: run folder; made if missing, and empty unless `options.resume`.
        options: the rest.
        tasks: makes what is trained of a recipe's stages: `calotype.tasks.factory.Tasks()`.
        group: the processes that train together; None = those that were started together.

    Returns:
        The exit code: 0 when finished, or after SIGTERM; 130 after Ctrl-C; 1 where another
        process has failed, and told why.

    Raises:
        UsageError: the options do not fit what is there.
        CalotypeError: training cannot go on.
    """
    run = _Run(recipe, data, out, options, tasks)
    if group is not None:
        return run.start(group)
    try:
        with open_group() as started:
            return run.start(started)
    except OtherProcessFailed:
        return 1


class _Run:
    """A recipe on its way through its stages."""

    def __init__(
        self, recipe: Recipe, data: Path, out: Path, options: RunOptions, tasks: TaskFactory
    ) -> None:
        self.recipe = recipe
        self.data = data
        self.out = out
        self.options = options
        self.tasks = tasks
        self.group = ALONE
        self.begin = resume.Start(None, {})
        self.init: Path | None = None
        self.done: list[nn.Module] = []  # exported, on the first process
        self.report = SourceReport()  # of the data, over all stages

    def start(self, group: Group) -> int:
        """Check, choose where to begin, and train; returns the exit code."""
        options, out, self.group = self.options, self.out, group
        if not options.resume:
            self.tasks.check_init(self.recipe, options.init)
        for config in self.recipe.stages:
            check_batches(config, group)
        self.tasks.check(self.recipe, only_draft=options.only_draft)
        asked = resume.with_options(self.recipe, images=options.images, seed=options.seed)
        with stop_on_signals(group) as stop, ExitStack() as stack:
            if group.is_first:
                missing = [path for path in (out, *out.absolute().parents) if not path.exists()]
                make_run_folder(out)
                stack.enter_context(locked(out))
                stack.enter_context(run_folder.undone_if_not_begun(out, missing))
                self._check_kind()
                if options.resume:
                    run_folder.check_run(out)
                else:
                    run_folder.clear_start(out, asked)
            self.recipe, self.init, self.begin = group.from_first(lambda: self._beginning(asked))
            return self.train(stop)

    @property
    def quiet(self) -> bool:
        """Whether this process shows no progress."""
        return self.options.quiet or not self.group.is_first

    def _check_kind(self) -> None:
        if runs := stage_runs(self.out):
            raise UsageError(
                f"{self.out} holds one run a stage, e.g. {runs[0].name}; go on with --parallel "
                "stages, or choose another --out"
            )

    def say(self, text: str) -> None:
        """Tell the user something that is not an error."""
        if self.group.is_first:
            print(text, flush=True)

    def _beginning(self, recipe: Recipe) -> tuple[Recipe, Path | None, resume.Start]:
        """The recipe as recorded, the weights to start from, and the checkpoint to go on from."""
        out, options = self.out, self.options
        init = resume.recorded_init(out, options.init)
        if not options.resume:
            return recipe, init, resume.Start(None, {})
        recipe = resume.recorded_recipe(out, recipe, images=options.images)
        start = resume.find_start(out, recipe, start_over=options.start_over, say=self.say)
        if start.path is None:
            self.say(f"no checkpoint to go on from in {out}: starting over")
            self.tasks.check_init(recipe, init)
        return recipe, init, start

    def train(self, stop: StopRequest) -> int:
        """Train from the start that was chosen; returns the exit code."""
        state = self.begin.state
        if resume.is_finished(state, self.recipe):
            self.say(f"the run in {self.out} is finished: {state['images']} images")
            last = self.recipe.stages[-1]
            check_skipped(state["skipped"], steps=_steps(state["images_seen"], last))
            return 0
        if self.options.only_draft and self.begin.path is not None:
            raise UsageError(
                f"got --only draft for {self.out}, whose draft is trained; expected another --out, "
                f"with --init {self.out} to train a new draft for it"
            )
        runtime = self.group.from_first(self._runtime)
        torch.set_num_threads(runtime.threads)
        preparation = self._preparation(runtime, stop)
        if self.group.is_first:
            resume.record_recipe(self.out, self.recipe, init=self.init)
        if self.begin.path is not None:
            self.say(f"going on from checkpoint {self.begin.path.name}")
        first = int(state.get("stage", 0))
        self._load_earlier_stages(first)
        images = int(state.get("images", 0))
        with open_files(
            self.out, self.recipe, images=images, say=self.say, first=self.group.is_first
        ) as files:
            for number in range(first, len(self.recipe.stages)):
                try:
                    job = self._prepare(preparation, number)
                except Stopped:
                    return self._stopped(images, stop)
                if not job.finished and not stop:
                    self._train_stage(job, files, stop, number=number, runtime=runtime)
                    self._account(job)
                images = job.images
                if self.options.only_draft and not stop:
                    self._tell_account()
                    self.say(f"the draft is trained; sample with --model {self.out}")
                    return 0
                if stop:
                    return self._stopped(images, stop)
                check_skipped(job.state.skipped, steps=_steps(job.state.images_seen, job.config))
                average = job.state.averaged_model()
                if self.group.is_first:
                    self.done.append(job.task.exported(average))
        self._tell_account()
        self.say(f"finished: {images} images; sample with --model {self.out}")
        return 0

    def _preparation(self, runtime: Runtime, stop: StopRequest) -> Preparation:
        own = dataclasses.replace(runtime, device=self.group.device(runtime.device))
        return Preparation(
            self.data,
            self.out,
            own,
            self.quiet,
            stop,
            self.group,
            sharded=self.options.sharded,
            missing_captions=self.options.missing_captions,
        )

    def _runtime(self) -> Runtime:
        """As asked for, else as in the checkpoint, else chosen."""
        state, options = self.begin.state, self.options
        saved, processes = state.get("runtime", {}), self.group.world_size
        as_many = state.get("processes", 1) == processes
        runtime = choose_runtime(
            saved.get("device") if options.device is None else options.device,
            saved.get("dtype") if options.dtype is None else options.dtype,
            saved.get("threads") if options.threads is None and as_many else options.threads,
        )
        before = state.get("versions", {})
        if saved and (saved != runtime.to_dict() or before != versions() or not as_many):
            what = "device, dtype, threads or versions" if as_many else "the number of processes"
            has = "have" if as_many else "has"
            self.say(f"{what} {has} changed: not the same bits from here")
        return runtime

    def _load_earlier_stages(self, first: int) -> None:
        if not self.group.is_first:
            return
        for config in self.recipe.stages[:first]:
            assert self.begin.path is not None
            folder = self.begin.path / "cascade"
            self.done.append(self.tasks.load_exported(folder, config))

    def _prepare(self, preparation: Preparation, number: int) -> Job:
        """The job of a stage, gone on with from the checkpoint where it belongs to this stage."""
        start, config = self.begin, self.recipe.stages[number]
        offset = sum(stage.total_images for stage in self.recipe.stages[:number])
        resumed = start.path is not None and start.state["stage"] == number
        job = self.tasks.prepare(
            preparation,
            config,
            TaskStart(
                offset=offset,
                init=None if resumed else self.init,
                resumed=resumed,
                only_draft=self.options.only_draft,
            ),
        )
        if resumed and start.path is not None:
            self._check_data(start.state, job)
            load_state(job.state, start.path)
        return job

    def _check_data(self, state: dict[str, Any], job: Job) -> None:
        """The data must be what it was.

        Raises:
            CalotypeError: it is not, and an inexact resume is not allowed.
        """
        if state["data_fingerprint"] == job.fingerprint:
            return
        text = f"the data in {self.data} has changed since the checkpoint was written"
        if job.task.fingerprint is not None:
            text = (
                f"the data in {self.data}, or the weights of lowres_estimates.model, have changed"
            )
        if not self.options.allow_inexact_resume:
            raise CalotypeError(f"{text}; restore it, or add --allow-inexact-resume")
        self.say(f"{text}: going on, but not exactly")

    def _train_stage(
        self, job: Job, files: RunFiles, stop: StopRequest, *, number: int, runtime: Runtime
    ) -> None:
        title = f"{self.recipe.name} {job.task.name}px"
        ends = job.offset + job.config.total_images
        checkpoints = CheckpointManager(
            self.out / "checkpoints", self.recipe, job, done=tuple(self.done), runtime=runtime
        )
        if self.begin.path is not None and self.begin.state["stage"] == number:
            checkpoints.latest = self.begin.path
        with checkpoints, TrainingDisplay(title, ends, quiet=self.quiet) as display:
            trainer = Trainer(
                job,
                files,
                checkpoints=checkpoints,
                display=display,
                guards=self.options.guards,
            )
            if self.options.only_draft:
                checkpoints.write(decay_start=False)
            else:
                trainer.train(stop)

    def _account(self, job: Job) -> None:
        """List in the run's folder what of the data was not used as it is."""
        # Each process has read images of its own, and each stage some more.
        met = self.group.gathered(job.source.report)
        self.report = SourceReport.merged([self.report, *met])
        found = {kind: keys for kind, keys in vars(self.report).items() if keys}
        if found and self.group.is_first:
            lists = {k: v if isinstance(v, dict) else sorted(v) for k, v in found.items()}
            text = json.dumps(lists, indent=1, default=vars)
            write_file(self.out / "data.json", text.encode())

    def _tell_account(self) -> None:
        """Say once, at the end, how much of the data was not used as it is."""
        counts = [f"{n} {k.replace('_', ' ')}" for k, n in self.report.counts().items() if n]
        if counts:
            self.say(f"data: {', '.join(counts)}; listed in {self.out / 'data.json'}")

    def _stopped(self, images: int, stop: StopRequest) -> int:
        self._tell_account()
        self.say(f"stopped at {images} images; go on with --resume")
        return 0 if stop.exit_code is None else stop.exit_code


def make_run_folder(out: Path) -> None:
    """Make the folder of a run, if it is missing.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the run folder {out}: {error.strerror}; choose another --out"
        ) from error


def _steps(images: int, config: TrainConfig) -> int:
    return math.ceil(images / config.batch_size)
