"""Training one task: steps, and what happens between them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import nn

from calotype.data.batches import Batch
from calotype.errors import CalotypeError, NotFiniteError
from calotype.training.checkpoint_manager import CheckpointManager
from calotype.training.exports import cut_back_exports
from calotype.training.guards import Guards
from calotype.training.job import Job
from calotype.training.learning_rate import decay_start
from calotype.training.progress import RateMeter, TrainingDisplay
from calotype.training.run_files import RunFiles
from calotype.training.signals import StopRequest
from calotype.training.step import StepMetrics, train_step
from calotype.training.stream import training_batches


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step, and how many of them it waited for its batch."""

    seconds: float
    waited: float


class Trainer:
    """Trains a job to its end, or until somebody asks it to stop.

    Of several processes all take the same steps and come to the same decisions; the first one
    writes, validates and draws, while the others wait.

    Args:
        job: what is trained.
        files: where it is written down.
        checkpoints: of the job.
        display: shows how far it is.
        guards: against numbers that are not finite, and against loss spikes.
    """

    def __init__(
        self,
        job: Job,
        files: RunFiles,
        *,
        checkpoints: CheckpointManager,
        display: TrainingDisplay,
        guards: Guards,
    ) -> None:
        """Keep the parts."""
        self.job = job
        self.files = files
        self._checkpoints = checkpoints
        self._display = display
        self._guards = guards
        self._meter = RateMeter()
        self._group = job.group
        processes = self._group.world_size
        self._cost = self._group.from_first(lambda: job.task.cost(processes))

    def train(self, stop: StopRequest) -> None:
        """Take steps until the stage is finished or `stop` says so; a checkpoint ends both."""
        while not self.job.finished and not stop:
            with closing(self._batches()) as stream:
                self._train_stream(stream, stop)

    def _batches(self) -> Generator[Batch, None, None]:
        return training_batches(self.job)

    def _train_stream(self, stream: Iterator[Batch], stop: StopRequest) -> None:
        """Steps on one stream of batches; ends early after a rewind, for another place in it."""
        job, state = self.job, self.job.state
        while not job.finished:
            before, began = state.images_seen, time.perf_counter()
            batch = shortened(next(stream), job.config.total_images - before)
            waited = time.perf_counter() - began
            metrics = train_step(state, batch)
            self._write_down(metrics, StepTimes(time.perf_counter() - began, waited), batch)
            stop.agree()
            if self._guards.spiked(state, metrics) and self._pass_over(batch):
                return
            self._between_steps(before, stop)
            if stop:
                return

    def _write_down(self, metrics: StepMetrics, times: StepTimes, batch: Batch) -> None:
        state, images = self.job.state, self.job.images
        self._meter.update(
            images=batch.images, seconds=times.seconds, waited=times.waited, loss=metrics.loss
        )
        line = {
            "images": images,
            "stage": self.job.task.key,
            "loss": metrics.loss,
            "grad_norm": metrics.grad_norm,
            "lr": metrics.learning_rate,
            "skipped": state.skipped + metrics.skipped,
            "rewinds": state.rewinds,
            "images_per_second": round(batch.images / times.seconds, 3),
            "data_wait": round(times.waited / times.seconds, 4),
            **self._cost.rates(batch.images / times.seconds),
            **metrics.more,
        }
        self.files.write("log", line)
        self.files.scalars.add(line, images)
        self._display.show(images, self._meter)
        if metrics.skipped:
            place = {"positions": [batch.position, batch.position + batch.images]}
            note = {**line, "reason": "not finite", **place, "keys": self._keys(batch)}
            self.files.write("skipped", note)
        self._guards.count(state, metrics)

    def _pass_over(self, batch: Batch) -> bool:
        """After a spike: back to the last good checkpoint, and on behind this batch."""
        state, images = self.job.state, self.job.images
        spike_end, skipped, rewinds = state.position, state.skipped, state.rewinds
        note = {"images": images, "reason": "loss spike", "keys": self._keys(batch)}
        if not self._checkpoints.rewind(self._guards):
            return False
        note["positions"] = [state.position, spike_end]  # all that is passed over; keys: the last
        state.data_offset = spike_end - state.images_seen
        state.skipped, state.rewinds = skipped, rewinds + 1
        self.files.cut_back(self.job.images)
        if self._group.is_first:
            last = self.job.offset + self.job.config.total_images
            cut_back_exports(self.files.folder, self.job.images, last=last)
        self.files.write("skipped", {**note, "images": self.job.images, "spike_at": images})
        return True

    def _keys(self, batch: Batch) -> list[str]:
        """Of the whole batch; every process calls this."""
        rows = range(len(batch.x)) if batch.share is None else batch.share.rows
        named = self._group.gathered(tuple(zip(rows, batch.keys, strict=True)))
        every = sorted(pair for pairs in named for pair in pairs)
        return [key for row, key in every if row < batch.images]

    def _between_steps(self, before: int, stop: StopRequest) -> None:
        """Validation, grids and checkpoints that are due."""
        job, config, state = self.job, self.job.config, self.job.state
        validates = self._due(before, config.validation_images)
        draws = self._due(before, config.grid_images)
        if validates or draws:
            average = state.averaged_model()
            if validates and self._group.is_first:
                self._validate(average)
            if draws and self._group.is_first:
                self._preview(average)
        if state.posthoc is not None and self._due(before, config.posthoc_ema_images):
            state.posthoc.write(
                self.files.folder,
                images=job.images,
                resolution=job.task.key,
                first=self._group.is_first,
            )
        starts = decay_start(config.optimizer, config.total_images)
        at_decay = before < starts <= state.images_seen
        writes = self._due(before, config.checkpoint_images) or at_decay or bool(stop)
        if writes:
            self.files.sync()
            self._checkpoints.write(decay_start=at_decay)
        if validates or draws or writes:
            self._group.wait()  # here, where it may last: steps have less patience
        self._checkpoints.check()

    def _due(self, before: int, interval: int) -> bool:
        """Whether a multiple of `interval` was passed, over all stages, or the stage ended."""
        if interval <= 0:
            return False
        then, now = self.job.offset + before, self.job.images
        return self.job.finished or then // interval < now // interval

    def _validate(self, average: nn.Module) -> None:
        job, began = self.job, time.perf_counter()
        line: dict[str, object] = {"images": job.images, "stage": job.task.key}
        for name, errors in job.task.validate(average).items():
            line[name] = errors
            self.files.scalars.add(
                {f"{name}/sigma {ratio}": error for ratio, error in errors.items()}, job.images
            )
        seconds = round(time.perf_counter() - began, 2)
        self.files.write("validation", {**line, "seconds": seconds})

    def _preview(self, average: nn.Module) -> None:
        job = self.job
        folder = self.files.folder / "grids"
        folder.mkdir(exist_ok=True)
        path = folder / f"{job.images}.png"
        try:
            job.task.preview(average, path)
        except NotFiniteError as error:  # half-trained weights may do it: no reason to stop
            note = f"no grid at {job.images} images: {error}"
            print(note, file=sys.stderr, flush=True)
        if path.is_file():
            self.files.scalars.add({"grid": path}, job.images)


def shortened(batch: Batch, images: int) -> Batch:
    """At most `images` examples of a batch: the last one of a run."""
    if images <= 0:
        raise CalotypeError(f"got {images} images left; expected at least 1")
    if batch.images <= images:
        return batch
    if batch.share is not None:
        # Rows that are too many stay, and count nothing: all processes do the same work.
        counted = torch.tensor(batch.share.rows) < images
        weights = torch.ones(len(batch.x)) if batch.weights is None else batch.weights
        share = dataclasses.replace(batch.share, total=images)
        return dataclasses.replace(batch, weights=weights * counted, share=share)
    return dataclasses.replace(
        batch,
        x=batch.x[:images],
        lowres=None if batch.lowres is None else batch.lowres[:images],
        whole_lowres=None if batch.whole_lowres is None else batch.whole_lowres[:images],
        places=None if batch.places is None else batch.places[:images],
        captions=batch.captions[:images],
        keys=batch.keys[:images],
        first_captions=batch.first_captions[:images],
        concepts=batch.concepts[:images],
        weights=None if batch.weights is None else batch.weights[:images],
    )
