"""Training one task: steps, and what happens between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from calotype.data.batch import Batch
from calotype.errors import NotFiniteError
from calotype.training.checkpoint_manager import CheckpointManager
from calotype.training.guards import Guards
from calotype.training.learning_rate import decay_start
from calotype.training.posthoc_ema import write_snapshots
from calotype.training.preparation import Job
from calotype.training.progress import RateMeter, TrainingDisplay
from calotype.training.run_files import RunFiles
from calotype.training.signals import StopRequest
from calotype.training.state import TrainState
from calotype.training.step import StepMetrics, train_step
from calotype.training.stream import training_batches


@dataclass(eq=False)
class Trainer:
    """Trains a task to its end, or until somebody asks it to stop.

    Of several processes all take the same steps and come to the same decisions; rank 0
    writes, validates and samples, while the others wait.

    Args:
        job: what is trained on what.
        state: how far it is.
        files: where it is written down.
        checkpoints: of the state.
        display: shows how far it is.
        guards: against numbers that are not finite, and against loss spikes.
    """

    job: Job
    state: TrainState
    files: RunFiles
    checkpoints: CheckpointManager
    display: TrainingDisplay
    guards: Guards

    def __post_init__(self) -> None:
        self._meter = RateMeter()
        self._group = self.state.parallel.group
        task, processes = self.job.task, self._group.world_size
        self._cost = self._group.on_rank_zero(lambda: task.cost(processes))
        config = task.config
        self._periodic: list[tuple[int, Callable[[], None]]] = []
        self.every(config.validation_images, self._validate)
        self.every(config.grid_images, self._preview)
        self.every(config.posthoc_ema_images, self._write_posthoc)
        self.every(config.checkpoint_images, self._checkpoint)

    def every(self, images: int, action: Callable[[], None]) -> None:
        """Do something when a multiple of `images` is passed, over all stages, and at the end.

        Every process does it after the same step, in the order of these calls; 0 = never.
        """
        self._periodic.append((images, action))

    def train(self, stop: StopRequest) -> None:
        """Take steps until the task is finished or `stop` says so; a checkpoint ends both."""
        state = self.state
        while not state.finished and not stop:
            with closing(training_batches(self.job, state)) as batches:
                began = time.perf_counter()
                for batch in batches:
                    waited = time.perf_counter() - began
                    before = state.images_seen
                    metrics = train_step(state, batch)
                    self._write_down(metrics, batch, time.perf_counter() - began, waited)
                    stop.agree()
                    if self.guards.spiked(state, metrics) and self._pass_over(batch):
                        break  # on from another place in the data
                    self._between_steps(before, stop)
                    if stop:
                        return
                    began = time.perf_counter()

    def _write_down(
        self, metrics: StepMetrics, batch: Batch, seconds: float, waited: float
    ) -> None:
        """Log a step that took so many seconds, some of which it waited for its batch."""
        state, images = self.state, self.state.images
        self._meter.update(images=batch.images, seconds=seconds, waited=waited, loss=metrics.loss)
        line = {
            "images": images,
            "stage": self.job.task.key,
            "loss": metrics.loss,
            "grad_norm": metrics.grad_norm,
            "lr": metrics.learning_rate,
            "skipped": state.skipped + metrics.skipped,
            "rewinds": state.rewinds,
            "images_per_second": round(batch.images / seconds, 3),
            "data_wait": round(waited / seconds, 4),
            **({} if self._cost is None else self._cost.rates(batch.images / seconds)),
            **metrics.more,
        }
        self.files.write("log", line)
        self.files.scalars.add(line, images)
        self.display.show(images, self._meter)
        if metrics.skipped:
            place = {"positions": [batch.position, batch.position + batch.images]}
            note = {**line, "reason": "not finite", **place, "keys": self._keys(batch)}
            self.files.write("skipped", note)
        self.guards.count(state, metrics)

    def _pass_over(self, batch: Batch) -> bool:
        """After a spike: back to the last good checkpoint, and on behind this batch."""
        state, images = self.state, self.state.images
        spike_end, skipped, rewinds = state.position, state.skipped, state.rewinds
        note = {"images": images, "reason": "loss spike", "keys": self._keys(batch)}
        if not self.checkpoints.rewind(self.guards):
            return False
        note["positions"] = [state.position, spike_end]  # all that is passed over; keys: the last
        state.data_offset = spike_end - state.images_seen
        state.skipped, state.rewinds = skipped, rewinds + 1
        self.files.cut_back(state.images, last=state.end)
        self.files.write("skipped", {**note, "images": state.images, "spike_at": images})
        return True

    def _keys(self, batch: Batch) -> list[str]:
        """Of the whole batch; every process calls this."""
        rows = range(len(batch.x)) if batch.share is None else batch.share.rows
        named = self._group.all_gather(tuple(zip(rows, batch.keys, strict=True)))
        every = sorted(pair for pairs in named for pair in pairs)
        return [key for row, key in every if row < batch.images]

    def _between_steps(self, before: int, stop: StopRequest) -> None:
        """What is due after the step that began at `before`; a checkpoint comes last."""
        state, config = self.state, self.job.task.config
        starts = decay_start(config.optimizer, config.total_images)
        state.decay_start = before < starts <= state.images_seen
        due = [action for images, action in self._periodic if self._due(before, images)]
        if (state.decay_start or stop) and self._checkpoint not in due:
            due.append(self._checkpoint)
        for action in due:
            action()
        if due:
            self._group.barrier()  # here, where it may last: steps have less patience
        self.checkpoints.check()

    def _due(self, before: int, images: int) -> bool:
        """Whether a multiple of `images` is passed, over all stages, or the end; 0 = never."""
        state = self.state
        if images == 0:
            return False
        return state.finished or (state.offset + before) // images < state.images // images

    def _validate(self) -> None:
        task, state, began = self.job.task, self.state, time.perf_counter()
        average = state.averaged_model()
        if not self._group.is_rank_zero:
            return
        line: dict[str, object] = {"images": state.images, "stage": task.key}
        for name, errors in task.validate(average).items():
            line[name] = errors
            for measure, error in errors.items():
                unit = task.measured if measure[:1].isdigit() else ""
                self.files.scalars.add({f"{name}/{unit}{measure}": error}, state.images)
        seconds = round(time.perf_counter() - began, 2)
        self.files.write("validation", {**line, "seconds": seconds})

    def _preview(self) -> None:
        images, average = self.state.images, self.state.averaged_model()
        if not self._group.is_rank_zero:
            return
        folder = self.files.folder / "grids"
        folder.mkdir(exist_ok=True)
        path = folder / f"{images}.png"
        try:
            self.job.task.preview(average, path)
        except NotFiniteError as error:  # half-trained weights may do it: no reason to stop
            print(f"no grid at {images} images: {error}", file=sys.stderr, flush=True)
        if path.is_file():
            self.files.scalars.add({"grid": path}, images)

    def _write_posthoc(self) -> None:
        state, run = self.state, self.files.folder
        facts = {"images": state.images_seen, "resolution": self.job.task.key}
        writes = self._group.is_rank_zero
        write_snapshots(state.posthoc, run, images=state.images, facts=facts, writes=writes)

    def _checkpoint(self) -> None:
        self.files.sync()
        self.checkpoints.write()
