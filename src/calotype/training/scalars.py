"""Scalars for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Scalars(Protocol):
    """Takes named numbers at a count of pictures."""

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Write the numbers among the values down."""
        ...

    def close(self) -> None:
        """Write everything out."""
        ...


class NoScalars:
    """Writes nothing."""

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoardScalars:
    """Writes event files.

    Args:
        folder: where.
        images: events after this count of pictures, of an earlier attempt, are hidden.
    """

    def __init__(self, folder: Path, *, images: int) -> None:
        """Open; raises ImportError where TensorBoard is not installed."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=images + 1, flush_secs=30)

    def add(self, numbers: Mapping[str, Any], images: int) -> None:
        """Write the numbers among the values down."""
        for name, value in numbers.items():
            if isinstance(value, int | float) and name not in ("images", "stage"):
                self._writer.add_scalar(name, value, images)

    def close(self) -> None:
        """Write everything out."""
        self._writer.close()


def open_scalars(folder: Path, *, images: int) -> Scalars | None:
    """TensorBoard's writer, or None where TensorBoard is not installed."""
    try:
        return TensorBoardScalars(folder, images=images)
    except ImportError:
        return None
