"""Where a trainer's batches come from: data loaders that never end, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, random_split

from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.trainer_config import TrainerSettings


class Feeds:
    """The training and the validation loader.

    Args:
        settings: names of what a batch holds, and how validation data is split off.
    """

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._loaders: dict[str, Any] = {}
        self._iterators: dict[str, Iterator[Any]] = {}

    def add_training_set(self, dataset: Any, *, batch_size: int, **loader: Any) -> None:
        """Train on a dataset, perhaps less a part for validation."""
        if self._settings.split_valid_from_train:
            kept = int((1 - self._settings.split_valid_fraction) * len(dataset))
            generator = torch.Generator().manual_seed(self._settings.split_random_seed)
            lengths = [kept, len(dataset) - kept]
            dataset, validation = random_split(dataset, lengths, generator=generator)
            self.add_validation_set(validation, batch_size=batch_size, **loader)
        self.add_training(DataLoader(dataset, batch_size=batch_size, **loader))

    def add_validation_set(self, dataset: Any, *, batch_size: int, **loader: Any) -> None:
        """Validate on a dataset."""
        self.add_validation(DataLoader(dataset, batch_size=batch_size, **loader))

    def add_training(self, loader: Any) -> None:
        """Train on a loader's batches."""
        self._add("training", loader)

    def add_validation(self, loader: Any) -> None:
        """Validate on a loader's batches."""
        self._add("validation", loader)

    def next_training(self) -> dict[str, Any]:
        """The next batch, as keyword arguments of the trainer."""
        return self._next("training")

    def next_validation(self) -> dict[str, Any]:
        """The next batch, as keyword arguments of the trainer."""
        return self._next("validation")

    def _add(self, which: str, loader: Any) -> None:
        if which in self._loaders:
            raise UsageError(f"got a second {which} set; expected one")
        self._loaders[which] = loader

    def _next(self, which: str) -> dict[str, Any]:
        if which not in self._loaders:
            raise UsageError(f"got no {which} data; call add_{which[:5]}_dataset first")
        if which not in self._iterators:
            self._iterators[which] = _forever(self._loaders[which])
        batch = next(self._iterators[which])
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
