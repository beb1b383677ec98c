"""The class that a request names: whether what samples, or what guides it, was trained with it."""

from __future__ import annotations

from collections.abc import Sequence

from calotype.config.class_names import check_class
from calotype.config.stage import CascadeConfig, StageConfig
from calotype.errors import UsageError
from calotype.generation.guides import GuideJob
from calotype.generation.request import Request


def settle_class(request: Request, config: CascadeConfig, guides: Sequence[GuideJob]) -> str | None:
    """The class of all images; None = nobody names one.

    The base is told it if it knows it, and a classifier pulls towards it.

    Raises:
        UsageError: a classifier, or without one the model, was not trained with the class; or
            guidance is asked for that would do nothing.
    """
    name = _known(request, config, guides)
    _check_guidable(request, config.stages[0], name)
    return name


def _known(request: Request, config: CascadeConfig, guides: Sequence[GuideJob]) -> str | None:
    name, model = request.class_name, f"the model {config.name!r}"
    if name is None and request.like is not None:
        name = request.like.get("class")
        unguided = "guides" in request.like and not guides
        if unguided and name not in config.classes:  # only what guided that image knew it
            return None
    classifiers = [guide for guide in guides if guide.classes]
    if name is None:
        for guide in classifiers:
            _check_chosen(guide, config)
        return None
    for guide in classifiers:
        check_class(name, guide.classes, guide.note.title)
    if not classifiers and not config.classes:
        raise UsageError(
            f"got the class {name!r:.80} for {model}, which has none; expected no --class "
            "(sample and edit take one with --classifier)"
        )
    if not classifiers:
        check_class(name, config.classes, model)
    return name


def _check_chosen(guide: GuideJob, config: CascadeConfig) -> None:
    """Refuse classes chosen by seeds where the base has to be told some that it does not know."""
    base = config.stages[0]
    if base.class_count == 0 or base.null_class:
        return
    unknown = [name for name in guide.classes if name not in config.classes]
    if unknown:
        raise UsageError(
            f"got no class, and {guide.note.title} would choose some that the model "
            f"{config.name!r} was not trained with, such as {unknown[0]!r:.80}; it samples with "
            "its own alone (class_dropout=0): name one with --class"
        )


def _check_guidable(request: Request, base: StageConfig, class_name: str | None) -> None:
    """Refuse a guidance weight that is asked for where there is nothing to be guided away from.

    Raises:
        UsageError: the base takes no captions, and no class is named that it knows.
    """
    weight = request.guidance
    if weight in (None, 1) or base.network.text_dim > 0 or class_name in base.classes:
        return
    what = "and no class of its own is named" if base.class_count > 0 else "and has no classes"
    expected = "--class NAME beside it, or " if base.class_count > 0 else ""
    raise UsageError(
        f"got guidance {weight:g} for the {base.resolution} stage, which takes no captions {what}: "
        f"it would do nothing; expected {expected}no --guidance"
    )
