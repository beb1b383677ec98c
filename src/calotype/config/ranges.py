"""Bounds of numbers, said once in their types, and the checks of all settings.

A number says its bounds in its type, `Annotated[float, Range(0, 1)]`; `Settings` holds a record to
them however it was made.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from numbers import Real
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from calotype.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number, itself in the type of a field: `Annotated[int, Range(1, 4096)]`.

    Args:
        low: the smallest that is allowed.
        high: the largest that is allowed.
    """

    low: float
    high: float

    def check(self, name: str, value: Any) -> None:
        """Raise a ConfigError unless `value` is a number within the bounds; nan is refused too."""
        number: Any = value  # mypy: a Real has no order beside floats
        if not isinstance(value, Real) or not self.low <= number <= self.high:
            raise ConfigError(f"got {name}={shown(value)}; expected a number from {self}")

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


class Settings:
    """The base of all records of settings: numbers are held to the `Range` in their fields' types.

    Raises:
        ConfigError: one is out of range, or no number; the message names the field.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)  # mypy: a type[Self] is not hashable
        for name, hint in _ranged(kind).items():
            _check_range(name, getattr(self, name), hint)


def require(condition: bool, message: str) -> None:
    """Raise a ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raise a ConfigError unless `low <= value <= high`; nan is refused too."""
    Range(low, high).check(name, value)


def shown(value: Any) -> str:
    """A value as messages show it: cut, for it may be of any length."""
    if isinstance(value, int) and value.bit_length() > 128:  # Python prints no very long ones
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.80}"


@functools.cache
def _ranged(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check_range(name: str, value: Any, hint: Any) -> None:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for mark in parts[1:]:
            if isinstance(mark, Range):
                mark.check(name, value)
    elif origin in (Union, types.UnionType) and value is not None:
        for part in parts:
            _check_range(name, value, part)
    elif origin is tuple and isinstance(value, tuple):
        kinds = parts[:1] * len(value) if Ellipsis in parts else parts
        for item, kind in zip(value, kinds, strict=True):
            _check_range(name, item, kind)


Fraction = Annotated[float, Range(0.0, 1.0)]
Width = Annotated[int, Range(1, 65536)]
OptionalWidth = Annotated[int, Range(0, 65536)]
Resolution = Annotated[int, Range(1, 65536)]
Steps = Annotated[int, Range(1, 4096)]
GuidanceWeight = Annotated[float, Range(0.0, 1000.0)]
Images = Annotated[int, Range(0, 10**13)]
SomeImages = Annotated[int, Range(1, 10**13)]
BatchSize = Annotated[int, Range(1, 1_000_000)]
LearningRate = Annotated[float, Range(0.0, 10.0)]
WeightDecay = Annotated[float, Range(0.0, 100.0)]
