"""The shape the base U-Nets share: down level by level, up again with skips of the mirror image.

Reference: Ronneberger et al. 2015, arXiv:1505.04597; Dhariwal & Nichol 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from calotype.config.adm import AdmLevel
from calotype.config.network import LevelConfig

AnyLevel = TypeVar("AnyLevel", LevelConfig, AdmLevel)
Run = Callable[[nn.Module, Tensor], Tensor]
"""`(block, x) -> x`: calls a block with what it is told beside the feature maps."""


def build_down(
    down: nn.ModuleList,
    levels: Sequence[AnyLevel],
    *,
    block: Callable[[int, AnyLevel], nn.Module],
    halve: Callable[[int], nn.Module],
) -> list[int]:
    """Fill `down` with one list of blocks a level, each but the last ending with a halving block.

    Args:
        down: empty; filled in place, since the order of a network's parts names its parameters.
        levels: finest first.
        block: `(channels in, level) -> block`.
        halve: `channels -> block` to half the resolution.

    Returns:
        The channels of every skip, the stem's first.
    """
    channels = levels[0].channels
    skips = [channels]
    for index, level in enumerate(levels):
        blocks = nn.ModuleList()
        for _ in range(level.blocks):
            blocks.append(block(channels, level))
            channels = level.channels
            skips.append(channels)
        if index + 1 < len(levels):
            blocks.append(halve(channels))
            skips.append(channels)
        down.append(blocks)
    return skips


def build_up(
    up: nn.ModuleList,
    levels: Sequence[AnyLevel],
    skips: Sequence[int],
    *,
    block: Callable[[int, AnyLevel], nn.Module],
    double: Callable[[int], nn.Module],
) -> None:
    """Fill `up`, coarsest level first; blocks take a skip, all but the last end with doubling.

    Args:
        up: empty; filled in place.
        levels: finest first, as for `build_down`.
        skips: what `build_down` returned.
        block: `(channels in, skip included; level) -> block`.
        double: `channels -> block` to twice the resolution.
    """
    left = list(skips)
    channels = levels[-1].channels
    for index, level in reversed(list(enumerate(levels))):
        blocks = nn.ModuleList()
        for _ in range(level.blocks + 1):
            blocks.append(block(channels + left.pop(), level))
            channels = level.channels
        if index > 0:
            blocks.append(double(channels))
        up.append(blocks)


def walk(
    x: Tensor,
    run: Run,
    *,
    down: nn.ModuleList,
    middle: nn.ModuleList,
    up: nn.ModuleList,
    enter: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Pass feature maps through the whole shape.

    Args:
        x: feature maps of the stem, (B, C, H, W).
        run: calls one block.
        down: as `build_down` filled it.
        middle: blocks at the coarsest resolution.
        up: as `build_up` filled it.
        enter: `(x, level index) -> x`, called where a level begins on the way down.

    Returns:
        Feature maps (B, C', H, W) of the finest level.
    """
    skips = [x]
    for index, blocks in enumerate(down):
        x = x if enter is None else enter(x, index)
        for block in cast(nn.ModuleList, blocks):
            x = run(block, x)
            skips.append(x)
    for block in middle:
        x = run(block, x)
    for index, blocks in enumerate(up):
        *joining, last = cast(nn.ModuleList, blocks)
        for block in joining:
            x = run(block, torch.cat((x, skips.pop()), dim=1))
        finest = index + 1 == len(up)  # there the last block takes a skip; elsewhere it doubles
        x = run(last, torch.cat((x, skips.pop()), dim=1) if finest else x)
    return x
