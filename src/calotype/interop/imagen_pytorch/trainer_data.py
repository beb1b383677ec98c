"""Where a trainer's batches come from: data loaders that never end, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, random_split

from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.trainer_config import TrainerSettings

TRAINING, VALIDATION = "training", "validation"


class Feeds:
    """The training and the validation loader.

    Args:
        settings: names of what a batch holds, and how validation data is split off.
    """

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
