"""Weights in memory: loaded once, and shared by all that is made of one model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from calotype.cascade import Cascade, Stage
from calotype.cascade.guide import Pull
from calotype.generation.loras import apply_loras, lora_notes
from calotype.runtime import DTYPES, Runtime, choose_runtime

if TYPE_CHECKING:
    from calotype.generation.cascade import Job


@dataclass(frozen=True)
class Loaded:
    """A cascade ready to sample.

    Args:
        cascade: of one stage or more.
        runtime: how it computes.
        loras: what images note of those it samples with.
        pulls: guides that pull what its base samples.
    """

    cascade: Cascade
    runtime: Runtime
    loras: list[dict[str, Any]]
    pulls: tuple[Pull, ...] = ()

    def part(
        self, stop_at: int, change: Callable[[Stage], Stage] = lambda stage: stage, begin: int = 0
    ) -> Loaded:
        """The same weights, in part.

        Args:
            stop_at: resolution of the last stage.
            change: what is done to every stage, e.g. `Stage.answered`.
            begin: resolution from which on there are stages.
        """
        part = copy.copy(self.cascade)
        stages = (one for one in part.stages if begin <= one.config.resolution <= stop_at)
        part.stages = tuple(map(change, stages))
        part.config = replace(part.config, stages=tuple(one.config for one in part.stages))
        return replace(self, cascade=part)


def load(job: Job) -> Loaded:
    """Read the weights of a job, up to its last stage.

    Raises:
        UsageError: the job does not fit the weights.
        CalotypeError: files are missing or damaged.
    """
    cascade = Cascade.load(job.model, stop_at=job.stop_at)
    loras = apply_loras(cascade, job.loras, known=list(job.sampling), merged=job.merge_lora)
    runtime = job.runtime
    if job.gpus > 0:
        dtype = runtime.dtype if runtime.forced else None
        runtime = choose_runtime("cuda", dtype, runtime.threads)
    runtime.apply(cascade.stages, cascade.prior)
    for stage in cascade.stages:
        name = job.stage_dtypes.get(stage.config.resolution)
        if name is not None:
            stage.compute_dtype = DTYPES[name]
    of_base = cascade.stages[0].compute_dtype
    pulls = tuple(guide.load(runtime.device, of_base, job.class_name) for guide in job.guides)
    return Loaded(cascade, runtime, loras, pulls)


def outline(job: Job) -> Loaded:
    """The same without its weights: enough to plan with, and to name what is made."""
    cascade = Cascade.outline(job.model, stop_at=job.stop_at)
    return Loaded(cascade, job.runtime, lora_notes(job.loras))
