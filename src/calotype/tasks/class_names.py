"""The names of classes that a stage is trained on: its recipe's, or those that the data have."""

from __future__ import annotations

from calotype.config.diffusion import DiffusionTraining
from calotype.data.labels import class_names, class_numbers
from calotype.data.source import ExampleSource
from calotype.training.distributed import Group
from calotype.training.task import TaskStart


def with_class_names(
    config: DiffusionTraining, source: ExampleSource, start: TaskStart, group: Group
) -> DiffusionTraining:
    """The configuration with the names of its classes, which rank 0 looks for in the data.

    Raises:
        UsageError: an image has no label, all have the same, or one that the recipe does not name.
        ConfigError: there are more or fewer than the network has.
    """
    labels, names = config.data.labels, config.stage.classes
    if labels is None or (start.resumed and names):
        return config
    found = group.on_rank_zero(lambda: class_names(source, labels))
    if names:
        class_numbers(found, names)  # refuses others
    return config.of_classes(names or found)
