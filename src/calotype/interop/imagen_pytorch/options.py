"""What all arguments of this package share: unknown names, one value or one for each layer.

The other package takes everything by keyword. Here the keywords are the fields of frozen
dataclasses; what is unknown, ignored there or not offered here is refused by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Self, TypeVar

import torch
from torch import nn

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
    try:
        return kind(**{name: _as_tuple(value) for name, value in options.items()})
    except (ConfigError, TypeError) as error:
        reason = str(error)
        if isinstance(error, TypeError):
            reason = reason.partition("() ")[2] or reason
        raise ConfigError(f"{owner}: {reason}") from error


def per_item(name: str, value: Any, count: int, *, of: str = "U-Nets") -> tuple[Any, ...]:
    """One value for each of `count` layers or U-Nets, from a scalar or a tuple of that length."""
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) != count:
        raise ConfigError(
            f"got {len(value)} values of {name} for {count} {of}; give one, or one for each"
        )
    return value


def each(settings: Any, names: str, count: int, *, of: str = "U-Nets") -> list[Any]:
    """The fields `names` of settings, as a record for each of `count` layers or U-Nets."""
    values = {n: per_item(n, getattr(settings, n), count, of=of) for n in names.split()}
    return [SimpleNamespace(**{n: v[i] for n, v in values.items()}) for i in range(count)]


def refuse_unless(name: str, value: object, only: object, why: str) -> None:
    """Refuse an argument that the other package ignores, or that is not offered here."""
    if value != only:
        raise ConfigError(f"got {name}={value!r}; only {only!r} is possible here: {why}")


def one_of(name: str, value: Any, known: Any) -> None:
    """Refuse a value that is none of those known."""
    if value not in known:
        raise ConfigError(f"got {name}={value!r}; expected one of {sorted(known)}")


class CudaOptional(nn.Module):
    """A module whose `cuda()`, which programs call without asking, does nothing without a GPU."""

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """Move to a GPU, or warn and stay."""
        if torch.cuda.is_available():
            return super().cuda(device)
        name = type(self).__name__
        warnings.warn(f"{name}.cuda(): there is no GPU here; staying on the CPU", stacklevel=2)
        return self


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
