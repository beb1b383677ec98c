"""Tasks of a recipe's stages, by their kind; there is one, diffusion."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from calotype.cascade.io import load_stage
from calotype.config.recipe import Recipe, TrainConfig
from calotype.errors import UsageError
from calotype.tasks.estimates import check_estimates
from calotype.tasks.preparation import prepare_task
from calotype.training.job import Job
from calotype.training.preparation import Preparation
from calotype.training.task import TaskStart


class Tasks:
    """A `TaskFactory`."""

    def check(self, recipe: Recipe, *, only_draft: bool) -> None:
        """Refuse what cannot be trained, from the settings alone.

        Raises:
            UsageError: a draft alone where there is none, or a stage before that does not fit.
        """
        first = recipe.stages[0]
        if only_draft and first.lora is not None:
            raise UsageError("got --only draft with lora, which trains adapters alone; choose one")
        if only_draft and first.draft is None:
            raise UsageError(
                f"got --only draft for {recipe.name}, whose first stage trains no draft; expected "
                "a recipe such as emoji-64"
            )
        for config in recipe.stages:
            check_estimates(config)

    def check_init(self, recipe: Recipe, init: Path | None) -> None:
        """Refuse to begin with random weights where that is of no use.

        Raises:
            UsageError: adapters of such weights; a draft that neither is trained nor comes with
                weights.
        """
        if init is not None:
            return
        for config in recipe.stages:
            if config.stage.draft is not None and config.draft is None:
                raise UsageError(
                    "got a network with a draft and draft=null, which leaves the draft empty; "
                    "expected settings of draft, or --init with weights that have one"
                )
            if config.lora is not None:
                raise UsageError(
                    "got a recipe with lora and no weights to start from; add --init, e.g. --init "
                    "default"
                )

    def name(self, config: TrainConfig) -> str:
        """The stage's resolution."""
        return str(config.stage.resolution)

    def prepare(self, preparation: Preparation, config: TrainConfig, start: TaskStart) -> Job:
        """See `TaskFactory.prepare`."""
        return prepare_task(preparation, config, start)

    def load_exported(self, folder: Path, config: TrainConfig) -> nn.Module:
        """The stage of a cascade."""
        return load_stage(folder / self.name(config))
