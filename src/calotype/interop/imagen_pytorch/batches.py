"""Batches of a trainer: data loaders that never end; calls split along the batch and joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, random_split

from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.trainer_config import TrainerSettings

TRAINING, VALIDATION = "training", "validation"


@dataclass(frozen=True)
class Call:
    """Arguments of a call for some rows of a batch, and the fraction of the batch they are."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    fraction: float = 1.0

    def map(self, change: Callable[[Any], Any], fraction: float = 1.0) -> Call:
        """The call with every argument changed."""
        kwargs = {name: change(value) for name, value in self.kwargs.items()}
        return Call(tuple(change(value) for value in self.args), kwargs, fraction)


def as_tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """The whole call, NumPy arrays turned into tensors."""
    call = Call(tuple(args), dict(kwargs))
    return call.map(lambda v: torch.from_numpy(v) if isinstance(v, np.ndarray) else v)


def split(call: Call, size: int | None) -> Iterator[Call]:
    """Calls of at most `size` rows; tensors and lists of the batch's length are cut.

    That length is the one of the first tensor, or else of the first list.

    Raises:
        UsageError: there is neither, or `size` is below 1.
    """
    values = [v for v in (*call.args, *call.kwargs.values()) if _has_rows(v)]
    values.sort(key=lambda value: isinstance(value, list))
    if not values:
        raise UsageError("got no images and no texts; expected a batch")
    if size is not None and size < 1:
        raise UsageError(f"got max_batch_size={size}; expected at least 1")
    total = len(values[0])
    step = total if size is None else size
    for start in range(0, total, step):

        def cut(value: Any, rows: slice = slice(start, start + step)) -> Any:
            return value[rows] if _has_rows(value) and len(value) == total else value

        yield call.map(cut, min(step, total - start) / total)


def _has_rows(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)


def joined(outputs: Sequence[Any]) -> Any:
    """What `sample` returned for each call, as for the whole batch."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs))
    if isinstance(first, list) and first and isinstance(first[0], Tensor | list):
        return [joined(stage) for stage in zip(*outputs, strict=True)]
    return [image for output in outputs for image in output]


class Feeds:
    """The training and the validation loader."""

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._batches: dict[str, Iterator[Any]] = {}

    def add_dataset(self, which: str, ds: Any, *, batch_size: int, **loader: Any) -> None:
        """Batches of a dataset; with `split_valid_from_train` a part of it is for validation."""
        settings = self._settings
        if which == TRAINING and settings.split_valid_from_train:
            kept = int((1 - settings.split_valid_fraction) * len(ds))
            generator = torch.Generator().manual_seed(settings.split_random_seed)
            ds, validation = random_split(ds, [kept, len(ds) - kept], generator=generator)
            self.add_dataset(VALIDATION, validation, batch_size=batch_size, **loader)
        self.add(which, DataLoader(ds, batch_size=batch_size, **loader))

    def add(self, which: str, dl: Any) -> None:
        """Batches of a loader."""
        if which in self._batches:
            raise UsageError(f"got a second {which} set; expected one")
        self._batches[which] = _forever(dl)

    def next(self, which: str) -> dict[str, Any]:
        """The next batch, as keyword arguments of the trainer."""
        if which not in self._batches:
            raise UsageError(f"got no {which} data; call add_{which[:5]}_dataset first")
        batch = next(self._batches[which])
        names = self._settings.dl_tuple_output_keywords_names
        items = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        if len(items) > len(names):
            raise UsageError(
                f"got batches of {len(items)} parts for dl_tuple_output_keywords_names={names}"
            )
        return dict(zip(names, items, strict=False))


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise UsageError("got an empty data loader; expected at least one batch")
