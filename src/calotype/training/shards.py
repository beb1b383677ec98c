"""Tensors that may be spread over processes, a part of their rows on each (DTensor)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def is_spread(tensor: Tensor) -> bool:
    """Whether other processes hold parts of it."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: Tensor) -> Tensor:
    """The part that this process holds, sharing memory; all of an ordinary tensor."""
    return cast(Any, tensor).to_local() if is_spread(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it; where it is spread, every process has to call this."""
    return cast(Any, tensor).full_tensor() if is_spread(tensor) else tensor


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every process has, spread as `like` is; nothing is sent."""
    if not is_spread(like) or is_spread(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    other = cast(Any, like)
    placed: Tensor = distribute_tensor(
        tensor.to(like.device), other.device_mesh, other.placements, src_data_rank=None
    )
    return placed
