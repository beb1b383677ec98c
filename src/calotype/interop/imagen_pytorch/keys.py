"""Names of weights: those of imagen-pytorch and those of the network here."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")

_DOWN = ("before", "entry", "blocks", "attention", "after")
_RULES = (
    *((rf"^downs\.(\d+)\.{i}\.", rf"down.\1.{name}.") for i, name in enumerate(_DOWN)),
    *((rf"^ups\.(\d+)\.{i}\.", rf"up.\1.{name}.") for i, name in enumerate(_DOWN[1:])),
    (r"\blayers\.(\d+)\.0\.", r"layers.\1.attend."),
    (r"\blayers\.(\d+)\.1\.", r"layers.\1.feed."),
)


def own_name(name: str) -> str:
    """The name here of a weight of imagen-pytorch's `Unet`; other names stay as they are."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def under(values: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Those whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def rename_in_place(
    module: object, state: MutableMapping[str, Any], prefix: str, *rest: object
) -> None:
    """A hook of `load_state_dict`: lets a `Unet` load state dicts of imagen-pytorch."""
    if any(name.startswith((f"{prefix}downs.", f"{prefix}ups.")) for name in state):
        for name in [name for name in state if name.startswith(prefix)]:
            state[prefix + own_name(name.removeprefix(prefix))] = state.pop(name)
