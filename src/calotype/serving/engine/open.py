"""A request becomes a task, or an error: before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calotype.errors import UsageError
from calotype.serving.engine.ahead import Ahead
from calotype.serving.engine.edits import OutlinedEdit, check_edit, open_edit
from calotype.serving.engine.shelf import Shelf
from calotype.serving.engine.sizes import Size
from calotype.serving.engine.tasks import Enlarged, Given, Sampled, Source, Task
from calotype.serving.job import JobRequest

_EDITS = ("image_to_image", "inpaint", "vary")


@dataclass(frozen=True)
class Planned:
    """What a request would make.

    Args:
        model: its name.
        size: height and width of the finished image.
        ahead: its stages.
    """

    model: str
    size: Size
    ahead: list[Ahead]

    def to_dict(self) -> dict[str, Any]:
        """As the front is told."""
        return {
            "model": self.model,
            "size": [self.size[1], self.size[0]],
            "stages": [one.to_dict() for one in self.ahead],
            "calls": sum(one.calls for one in self.ahead),
        }


def open_task(source: Source, request: JobRequest, seed: int, given: Given | None) -> Task:
    """The task of a request.

    Args:
        source: the model.
        request: what is asked for.
        seed: of the image.
        given: what it begins with.

    Raises:
        UsageError: something does not fit.
    """
    if request.kind == "sample":
        return Sampled(source, request, seed)
    if given is None:
        raise UsageError(f"got {request.kind} without a source; expected an image")
    if request.kind == "upscale":
        return Enlarged(source, request, seed, given)
    return open_edit(source, request, seed, given)


def plan_request(shelf: Shelf, request: JobRequest, given: Given | None) -> Planned:
    """What a request would make; no weights are needed.

    Raises:
        CalotypeError: something does not fit.
    """
    model = shelf.find(request.model)
    source, seed = Source(model.folder, model.outlined), request.seed or 0
    if given is not None and request.kind in _EDITS:
        check_edit(request, given)
        task: Task | OutlinedEdit = OutlinedEdit(source, request, seed, given)
    else:
        task = open_task(source, request, seed, given)
    return Planned(model.entry.name, task.size, task.ahead)
