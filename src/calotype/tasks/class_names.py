"""The names of classes that are trained: the recipe's, or those that the data have."""

from __future__ import annotations

from calotype.data.labels import class_names, class_numbers
from calotype.data.source import ExampleSource
from calotype.training.distributed import Group


def settled_names(
    source: ExampleSource, labels: str, known: tuple[str, ...], group: Group
) -> tuple[str, ...]:
    """The known names, if there are any, else those of the data, where rank 0 looks for them.

    It looks in any case, also where a run is resumed: the data may have changed.

    Args:
        source: of the images.
        labels: where their classes stand, as `DataConfig.labels` says.
        known: of the recipe, or of the run that is resumed; () = none yet.
        group: of the processes that train.

    Raises:
        UsageError: an image has no label, all have the same, or one that is not among the known.
    """
    found = group.on_rank_zero(lambda: class_names(source, labels))
    if known:
        class_numbers(found, known)  # refuses others
    return known or found
