"""`calotype train`: a recipe, a folder of data and a run folder; stage after stage, resumable."""

from __future__ import annotations

import dataclasses
import math
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calotype.config.recipe import Recipe
from calotype.config.training import TrainConfig
from calotype.config.typed_json import to_dict
from calotype.data.source import SourceReport
from calotype.errors import CalotypeError, UsageError
from calotype.training import resume, run_folder
from calotype.training.checkpoint import read_state
from calotype.training.checkpoint_manager import CheckpointManager, load_state, versions
from calotype.training.distributed import Group, OtherProcessFailed, open_group
from calotype.training.guards import Guards, check_skipped
from calotype.training.preparation import Job, Preparation
from calotype.training.progress import TrainingDisplay
from calotype.training.run_files import RunFiles, open_files, write_account
from calotype.training.signals import Stopped, StopRequest, stop_on_signals
from calotype.training.state import TrainState
from calotype.training.stream import check_batches
from calotype.training.task import TaskFactory, TaskStart
from calotype.training.trainer import Trainer


@dataclass(frozen=True)
class RunOptions:
    """What `calotype train` is asked for beside recipe, data and run folder.

    Args:
        resume: resume what lies in the run folder.
        images: length of each stage in images; None = the recipe's.
        seed: None = the recipe's.
        init: weights to start from: a file, a stage's folder, a cascade or a run.
        device: as torch names it; None chooses.
        dtype: of the network calls; None chooses.
        threads: None chooses.
        quiet: no progress.
        allow_inexact_resume: resume where an exact resume is not possible.
        start_over: with `resume`, begin anew where no checkpoint can be resumed from; the old run's
            files are moved beside.
        sharded: with several processes, shard each stage over them; else each has a copy.
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
        process has failed, and said why.

    Raises:
        UsageError: the options do not fit what is there.
        CalotypeError: training cannot go on.
    """
    try:
        with open_group() if group is None else nullcontext(group) as joined:
            return _Run(recipe, data, out, options, tasks, joined).start()
    except OtherProcessFailed:
        return 1


@dataclass(eq=False)
class _Run:
    """A recipe on its way through its stages."""

    recipe: Recipe
    data: Path
    out: Path
    options: RunOptions
    tasks: TaskFactory
    group: Group
    init: Path | None = None
    checkpoint: Path | None = None  # to resume from
    begun: dict[str, Any] = field(default_factory=dict)  # what it says
    done: list[nn.Module] = field(default_factory=list)  # stages, exported, on rank 0
    report: SourceReport = field(default_factory=SourceReport)  # of the data, over all stages

    def start(self) -> int:
        """Check, choose where to begin, and train; returns the exit code."""
        options, group = self.options, self.group
        self.quiet = options.quiet or not group.is_rank_zero
        if not options.resume:
            self.tasks.check_init(self.recipe, options.init)
        for config in self.recipe.stages:
            check_batches(config, group)
        self.tasks.check(self.recipe, only_draft=options.only_draft)
        asked = resume.with_options(self.recipe, images=options.images, seed=options.seed)
        folder = run_folder.entered(self.out, asked, resume=options.resume)
        with stop_on_signals(group) as stop, folder if group.is_rank_zero else nullcontext():
            self.recipe, self.init, self.checkpoint = group.on_rank_zero(
                lambda: self._choose(asked)
            )
            if self.checkpoint is not None:
                self.begun = read_state(self.checkpoint)
            return self._train(stop)

    def say(self, text: str) -> None:
        """Say to the user something that is not an error."""
        if self.group.is_rank_zero:
            print(text, flush=True)

    def _choose(self, recipe: Recipe) -> tuple[Recipe, Path | None, Path | None]:
        """The recipe as recorded, the weights to start from, and the checkpoint to resume from."""
        out, options = self.out, self.options
        init = run_folder.recorded_init(out, options.init)
        if not options.resume:
            return recipe, init, None
        recipe = run_folder.recorded_recipe(out, recipe, images=options.images)
        path = resume.find_start(out, recipe, start_over=options.start_over, say=self.say)
        if path is None:
            self.say(f"no checkpoint to resume from in {out}: starting over")
            self.tasks.check_init(recipe, init)
        return recipe, init, path

    def _train(self, stop: StopRequest) -> int:
        """Train stage after stage from where the run begins; returns the exit code."""
        begun, group, only_draft = self.begun, self.group, self.options.only_draft
        if resume.is_finished(begun, self.recipe):
            self.say(f"the run in {self.out} is finished: {begun['images']} images")
            self._check_skipped(begun["stage"], begun["skipped"], begun["images_seen"])
            return 0
        if only_draft and self.checkpoint is not None:
            raise UsageError(
                f"got --only draft for {self.out}, whose draft is trained; expected another --out, "
                f"with --init {self.out} to train a new draft for it"
            )
        preparation = self._preparation(stop)
        if group.is_rank_zero:
            run_folder.record_recipe(self.out, self.recipe, init=self.init)
        if self.checkpoint is not None:
            self.say(f"resuming from checkpoint {self.checkpoint.name}")
        first, images = begun.get("stage", 0), begun.get("images", 0)
        if group.is_rank_zero and self.checkpoint is not None:
            for config in self.recipe.stages[:first]:
                self.done.append(self.tasks.load_exported(self.checkpoint, config))
        files = RunFiles(self.out)
        if group.is_rank_zero:
            files = open_files(self.out, self.recipe, images, say=self.say)
        with closing(files):
            for number in range(first, len(self.recipe.stages)):
                try:
                    job, state = self._prepare(preparation, number)
                except Stopped:
                    return self._stopped(images, stop)
                if not state.finished and not stop:
                    self._train_stage(number, job, state, files, stop)
                images = state.images
                if stop:
                    return self._stopped(images, stop)
                if only_draft:
                    return self._ended(f"the draft is trained; {job.task.use} {self.out}")
                self._check_skipped(number, state.skipped, state.images_seen)
                average = state.averaged_model()
                if group.is_rank_zero:
                    self.done.append(job.task.exported(average))
        return self._ended(f"finished: {images} images; {job.task.use} {self.out}")

    def _preparation(self, stop: StopRequest) -> Preparation:
        """What the stages share; the runtime is settled here, once."""
        options, group = self.options, self.group
        asked = {"device": options.device, "dtype": options.dtype, "threads": options.threads}
        self.runtime = group.on_rank_zero(
            lambda: resume.chosen_runtime(asked, self.begun, group.world_size, say=self.say)
        )
        torch.set_num_threads(self.runtime.threads)
        return Preparation(
            self.data,
            self.out,
            dataclasses.replace(self.runtime, device=group.device(self.runtime.device)),
            self.quiet,
            stop,
            group,
            missing_captions=options.missing_captions,
        )

    def _prepare(self, preparation: Preparation, number: int) -> tuple[Job, TrainState]:
        """A stage and its data; resumed from the checkpoint where that is of this stage."""
        options, checkpoint = self.options, self._checkpoint_of(number)
        resumed, init = checkpoint is not None, self.init if checkpoint is None else None
        start = TaskStart(init=init, resumed=resumed, only_draft=options.only_draft)
        job = self.tasks.prepare(preparation, self.recipe.stages[number], start)
        self._settle(number, job.task.config)
        offset = sum(stage.total_images for stage in self.recipe.stages[:number])
        state = TrainState(job.task, self.group, sharded=options.sharded, offset=offset)
        if checkpoint is not None:
            changed = resume.changed_data(self.begun, job, self.data)
            if changed is not None and not options.allow_inexact_resume:
                raise CalotypeError(f"{changed}; restore it, or add --allow-inexact-resume")
            if changed is not None:
                self.say(f"{changed}: resuming, but not exactly")
            load_state(state, checkpoint)
        return job, state

    def _settle(self, number: int, config: TrainConfig) -> None:
        """Note what the recipe has left to the data, such as the names of classes."""
        stages = list[Any](self.recipe.stages)
        if stages[number] != config:
            stages[number] = config
            self.recipe = dataclasses.replace(self.recipe, stages=tuple(stages))
            if self.group.is_rank_zero:
                run_folder.record_recipe(self.out, self.recipe, init=self.init)

    def _checkpoint_of(self, number: int) -> Path | None:
        """The checkpoint that the run resumes from, if it is one of this stage."""
        return self.checkpoint if self.begun.get("stage") == number else None

    def _train_stage(
        self, number: int, job: Job, state: TrainState, files: RunFiles, stop: StopRequest
    ) -> None:
        """Train a stage to its end or until somebody asks for it."""
        write = partial(job.task.write_model, earlier=tuple(self.done), recipe=self.recipe)
        facts = {
            "stage": number,
            "totals": [stage.total_images for stage in self.recipe.stages],
            "data_fingerprint": job.fingerprint,
            "runtime": self.runtime.to_dict(),
            "processes": self.group.world_size,
            "versions": versions(),
            "recipe": to_dict(self.recipe),
        }
        folder, title = self.out / "checkpoints", f"{self.recipe.name} {job.task.name}"
        display = TrainingDisplay(title, state.end, quiet=self.quiet, lasting=True)
        latest = self._checkpoint_of(number)
        manager = CheckpointManager(folder, state, facts, write, latest)
        with manager as checkpoints, display:
            trainer = Trainer(job, state, files, checkpoints, display, self.options.guards)
            if self.options.only_draft:
                checkpoints.write()
            else:
                trainer.train(stop)
        # Each process has read images of its own, and each stage some more.
        met = self.group.all_gather(job.source.report)
        self.report = SourceReport.merged([self.report, *met])
        if self.group.is_rank_zero:
            write_account(self.out, self.report)

    def _check_skipped(self, stage: int, skipped: int, images_seen: int) -> None:
        steps = math.ceil(images_seen / self.recipe.stages[stage].batch_size)
        check_skipped(skipped, steps=steps)

    def _stopped(self, images: int, stop: StopRequest) -> int:
        code = 0 if stop.exit_code is None else stop.exit_code
        return self._ended(f"stopped at {images} images; continue with --resume", code)

    def _ended(self, how: str, code: int = 0) -> int:
        counts = [f"{n} {k.replace('_', ' ')}" for k, n in self.report.counts().items() if n]
        if counts:  # said once, however many stages have met them
            self.say(f"data: {', '.join(counts)}; listed in {self.out / 'data.json'}")
        self.say(how)
        return code
