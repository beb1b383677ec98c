"""The class that a request names: whether what samples, or what guides it, was trained with it."""

from __future__ import annotations

from collections.abc import Sequence

from calotype.cascade.told import check_class
from calotype.config.stage import CascadeConfig
from calotype.errors import UsageError
from calotype.generation.guides import GuideJob
from calotype.generation.request import Request


def settle_class(request: Request, config: CascadeConfig, guides: Sequence[GuideJob]) -> str | None:
    """What a cascade is told that the images show; None = nobody says, or it has no classes.

    Raises:
        UsageError: nobody was trained with the class, or there is nobody to be told.
    """
    name = request.class_name
    if name is None and request.like is not None:
        name = request.like.get("class")
    guided = any(guide.classes for guide in guides)  # by a classifier, which knows the class
    if name is None or not config.classes or (guided and name not in config.classes):
        if name is not None and not guided:
            raise UsageError(
                f"got the class {name!r:.80} for the model {config.name!r}, which has none; "
                "expected no --class, or a --classifier beside it"
            )
        return None
    check_class(name, config.classes, f"the model {config.name!r}")
    return name
