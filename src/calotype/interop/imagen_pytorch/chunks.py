"""Cutting a call's arguments into parts of the batch, and joining what the parts return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calotype.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Arguments of one part of a batch, and its share of it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    share: float


def as_tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Part:
    """The whole call, NumPy arrays turned into tensors."""

    def turn(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return Part(tuple(turn(v) for v in args), {name: turn(v) for name, v in kwargs.items()}, 1.0)


def batch_size(call: Part) -> int:
    """Length of the first tensor, or else of the first list.

    Raises:
        UsageError: there is neither.
    """
    values = [*call.args, *call.kwargs.values()]
    for kind in (Tensor, list):
        for value in values:
            if isinstance(value, kind) and (not isinstance(value, Tensor) or value.ndim > 0):
                return len(value)
    raise UsageError("got no images and no texts; expected a batch")


def parts(call: Part, size: int | None) -> Iterator[Part]:
    """The call in parts of at most `size`; tensors and lists of the batch's length are cut."""
    total = batch_size(call)
    if size is not None and size < 1:
        raise UsageError(f"got max_batch_size={size}; expected at least 1")
    step = total if size is None else size

    def cut(value: Any, start: int) -> Any:
        cuttable = isinstance(value, Tensor | list) and not (
            isinstance(value, Tensor) and value.ndim == 0
        )
        return value[start : start + step] if cuttable and len(value) == total else value

    for start in range(0, total, step):
        yield Part(
            tuple(cut(value, start) for value in call.args),
            {name: cut(value, start) for name, value in call.kwargs.items()},
            min(step, total - start) / total,
        )


def joined(outputs: Sequence[Any]) -> Any:
    """What `sample` returned for the parts, as for the whole batch."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))
    if isinstance(first, list) and first and isinstance(first[0], Tensor | list):
        return [joined(stage) for stage in zip(*outputs, strict=True)]
    return [image for output in outputs for image in output]
