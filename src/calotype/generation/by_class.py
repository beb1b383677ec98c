"""One model with several classes in turn: its weights are read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from calotype.cascade.guide import Pull
from calotype.generation.best_of import best_of
from calotype.generation.cascade import CascadeGenerator, settle
from calotype.generation.generator import ImageGenerator
from calotype.generation.loaded import load
from calotype.generation.request import Request
from calotype.vision.guides import ClassifierGuide


def open_by_class(request: Request, classes: Sequence[str]) -> list[ImageGenerator[Any]]:
    """What makes the images of a request with each of these classes.

    Raises:
        UsageError: the request does not fit, or nobody was trained with a class; before weights
            are read.
        CalotypeError: files are missing or damaged.
    """
    jobs = [settle(replace(request, class_name=name)) for name in classes]
    loaded = load(jobs[0])
    generators: list[ImageGenerator[Any]] = []
    for job in jobs:
        own = replace(loaded, pulls=tuple(_towards(pull, job.class_name) for pull in loaded.pulls))
        generators.append(best_of(CascadeGenerator(job, own), job.best_of, job.clip))
    return generators


def _towards(pull: Pull, name: str | None) -> Pull:
    """The same weights, towards another class."""
    guide = pull.guide
    return replace(pull, guide=guide.towards(name)) if isinstance(guide, ClassifierGuide) else pull
