"""Names of weights: those of imagen-pytorch and those of the network here."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor

_RULES = (
    (r"^downs\.(\d+)\.0\.", r"down.\1.before."),
    (r"^downs\.(\d+)\.1\.", r"down.\1.entry."),
    (r"^downs\.(\d+)\.2\.", r"down.\1.blocks."),
    (r"^downs\.(\d+)\.3\.", r"down.\1.attention."),
    (r"^downs\.(\d+)\.4\.", r"down.\1.after."),
    (r"^ups\.(\d+)\.0\.", r"up.\1.entry."),
    (r"^ups\.(\d+)\.1\.", r"up.\1.blocks."),
    (r"^ups\.(\d+)\.2\.", r"up.\1.attention."),
    (r"^ups\.(\d+)\.3\.", r"up.\1.after."),
    (r"\blayers\.(\d+)\.0\.", r"layers.\1.attend."),
    (r"\blayers\.(\d+)\.1\.", r"layers.\1.feed."),
)


def own_name(name: str) -> str:
    """The name here of a weight of imagen-pytorch's `Unet`; other names stay as they are."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's state dict of imagen-pytorch under the names here."""
    return {own_name(name): value for name, value in state.items()}


def is_foreign(state: Mapping[str, object], prefix: str = "") -> bool:
    """Whether a state dict has imagen-pytorch's names for the U-Net at `prefix`."""
    return any(name.startswith((f"{prefix}downs.", f"{prefix}ups.")) for name in state)


def rename_in_place(
    module: object, state: MutableMapping[str, Any], prefix: str, *rest: object
) -> None:
    """A hook of `load_state_dict`: lets a `Unet` load state dicts of imagen-pytorch."""
    if not is_foreign(state, prefix):
        return
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + own_name(name.removeprefix(prefix))] = state.pop(name)
