"""Tensors that may be sharded over processes, a part of their rows on each (DTensor)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from calotype.errors import CalotypeError


def is_dtensor(tensor: Tensor) -> bool:
    """Whether other processes hold parts of it."""
    return hasattr(tensor, "full_tensor")


def to_local(tensor: Tensor) -> Tensor:
    """The part that this process holds, sharing memory; all of an ordinary tensor."""
    return cast(Any, tensor).to_local() if is_dtensor(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All of it; where it is sharded, every process has to call this."""
    return cast(Any, tensor).full_tensor() if is_dtensor(tensor) else tensor


def distribute_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every process has, sharded as `like` is; nothing is sent."""
    if not is_dtensor(like) or is_dtensor(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    other = cast(Any, like)
    placed: Tensor = distribute_tensor(
        tensor.to(like.device), other.device_mesh, other.placements, src_data_rank=None
    )
    return placed


@torch.no_grad()
def copy_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy named tensors into a model, keeping the model's memory layout and number type.

    Raises:
        CalotypeError: names or shapes differ.
    """
    own = model.state_dict()
    for name in sorted(own.keys() ^ weights.keys()):
        where = "missing in" if name in own else "not part of this network but in"
        raise CalotypeError(f"{name} is {where} the saved weights; expected the same recipe")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise CalotypeError(
                f"got {name} of shape {tuple(weights[name].shape)}; expected "
                f"{tuple(value.shape)}: the saved weights belong to another recipe"
            )
        value.copy_(distribute_like(weights[name], value))
