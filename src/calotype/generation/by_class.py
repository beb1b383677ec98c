"""One model with several classes in turn: its weights are read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from calotype.generation.best_of import best_of
from calotype.generation.cascade import CascadeGenerator, settle
from calotype.generation.generator import ImageGenerator
from calotype.generation.loaded import load, load_pulls
from calotype.generation.request import Request


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
        if job.guides != jobs[0].guides:
            loaded = replace(loaded, pulls=load_pulls(job, loaded.cascade, loaded.runtime))
        generators.append(best_of(CascadeGenerator(job, loaded), job.best_of, job.clip))
    return generators
