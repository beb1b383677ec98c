"""Checks that all settings of this package share: unknown names, one value or one a layer.

The other package takes everything by keyword. Here the keywords are the fields of frozen
dataclasses; what is unknown, ignored there or not offered here is refused by name.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from calotype.errors import ConfigError

T = TypeVar("T")


def read_options(kind: type[T], options: Mapping[str, Any], *, owner: str) -> T:
    """The settings `kind` from keyword arguments of `owner`.

    Lists become tuples, so that settings read from JSON equal those written in a program.

    Raises:
        ConfigError: a name is unknown, or a value is out of its range.
    """
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise ConfigError(f"{owner}: got the unknown argument {name!r}; {hint}")
    tuples = {name: _as_tuple(value) for name, value in options.items()}
    try:
        return kind(**tuples)
    except ConfigError as error:
        raise ConfigError(f"{owner}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{owner}: {_short(error)}") from error


def per_item(name: str, value: Any, count: int, *, of: str) -> tuple[Any, ...]:
    """One value for each of `count` layers or U-Nets, from a scalar or a tuple.

    Raises:
        ConfigError: a tuple of another length.
    """
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) != count:
        raise ConfigError(
            f"got {len(value)} values of {name} for {count} {of}; give one, or one for each"
        )
    return value


def refuse_unless(name: str, value: object, only: object, why: str) -> None:
    """Refuse an argument that the other package ignores, or that is not offered here."""
    if value != only:
        raise ConfigError(f"got {name}={value!r}; only {only!r} is possible here: {why}")


def to_json(settings: Any) -> dict[str, Any]:
    """Settings as plain data; `read_options` reads it back."""
    return dataclasses.asdict(settings)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value


def _short(error: TypeError) -> str:
    return str(error).partition("() ")[2] or str(error)
