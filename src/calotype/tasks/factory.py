"""The task of each stage of a recipe, by its kind."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from calotype.cascade.find import CASCADE_FOLDER
from calotype.cascade.io import load_stage
from calotype.config.classifier import ClassifierTraining
from calotype.config.clip import ClipTraining
from calotype.config.diffusion import DiffusionTraining
from calotype.config.recipe import Recipe
from calotype.config.training import TrainConfig
from calotype.data.grammar import CaptionGrammar
from calotype.errors import UsageError
from calotype.tasks.classifier_preparation import prepare_classifier
from calotype.tasks.clip_preparation import prepare_clip
from calotype.tasks.estimates import check_estimates
from calotype.tasks.preparation import prepare_stage
from calotype.training.preparation import Job, Preparation
from calotype.training.task import TaskStart
from calotype.vision.classifier import find_classifier
from calotype.vision.clip import find_clip


class Tasks:
    """A `TaskFactory`; `grammar` makes captions of data that have none, as `open_source` says."""

    def __init__(self, grammar: CaptionGrammar | None = None) -> None:
        self._grammar = grammar

    def check(self, recipe: Recipe, *, only_draft: bool) -> None:
        """Refuse what cannot be trained, from the settings alone.

        Raises:
            UsageError: a draft alone where there is none, or a stage before that does not fit.
        """
        first = recipe.stages[0]
        draft = isinstance(first, DiffusionTraining) and first.draft is not None
        if only_draft and not draft:
            raise UsageError(
                f"got --only draft for {recipe.name}, whose first stage trains no draft; expected "
                "a recipe such as emoji-64"
            )
        for config in recipe.cascade:
            if only_draft and config.lora is not None:
                raise UsageError(
                    "got --only draft with lora, which trains adapters alone; choose one"
                )
            check_estimates(config)

    def check_init(self, recipe: Recipe, init: Path | None) -> None:
        """Refuse to begin with random weights where that is of no use, or with no weights.

        Raises:
            UsageError: adapters of random weights; a draft that neither is trained nor comes with
                weights; `init` is no CLIP, or no classifier, where one is trained.
        """
        if init is not None:
            match recipe.stages[0]:
                case ClipTraining():
                    find_clip(init)
                case ClassifierTraining():
                    find_classifier(init)
            return
        for config in recipe.cascade:
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

    def prepare(self, preparation: Preparation, config: TrainConfig, start: TaskStart) -> Job:
        """See `TaskFactory.prepare`."""
        match config:
            case DiffusionTraining():
                return prepare_stage(preparation, config, start, self._grammar)
            case ClipTraining():
                return prepare_clip(preparation, config, start, self._grammar)
            case ClassifierTraining():
                return prepare_classifier(preparation, config, start)
        raise TypeError(f"got {type(config).__name__}; expected a kind of training that is known")

    def load_exported(self, checkpoint: Path, config: TrainConfig) -> nn.Module:
        """The stage of the checkpoint's cascade."""
        return load_stage(checkpoint / CASCADE_FOLDER / str(config.resolution))
