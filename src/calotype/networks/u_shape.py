"""The shape of the base U-Nets: down level by level, up again with skips of the mirror image.

Reference: Ronneberger et al. 2015, arXiv:1505.04597; Dhariwal & Nichol 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from calotype.config.adm import AdmLevel
from calotype.config.network import LevelConfig

AnyLevel = TypeVar("AnyLevel", LevelConfig, AdmLevel)
Run = Callable[[nn.Module, Tensor], Tensor]
"""`(block, x) -> x`: calls a block with what conditions it beside the feature maps."""


class UShape(nn.Module):
    """Blocks down, a middle, blocks up; `down` is finest first and `up` coarsest first."""

    down: nn.ModuleList
    middle: nn.ModuleList
    up: nn.ModuleList

    def build(
        self,
        levels: Sequence[AnyLevel],
        *,
        block: Callable[[int, AnyLevel], nn.Module],
        resampler: Callable[..., nn.Module],
        middle: Iterable[nn.Module],
    ) -> None:
        """Make the blocks; their order names the parameters, and decides their random numbers.

        Args:
            levels: finest first.
            block: `(channels in, those of its skip included; level) -> block`.
            resampler: `(channels, kind="down" or "up") -> block`; it stands between levels.
            middle: blocks at the coarsest resolution, made when they are asked for.
        """
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = levels[0].channels
        skips = [channels]  # channels of every skip, the stem's first
        for index, level in enumerate(levels):
            blocks = nn.ModuleList()
            for _ in range(level.blocks):
                blocks.append(block(channels, level))
                channels = level.channels
                skips.append(channels)
            if index + 1 < len(levels):
                blocks.append(resampler(channels, kind="down"))
                skips.append(channels)
            self.down.append(blocks)
        self.middle = nn.ModuleList(middle)
        for index, level in reversed(list(enumerate(levels))):
            blocks = nn.ModuleList()
            for _ in range(level.blocks + 1):
                blocks.append(block(channels + skips.pop(), level))
                channels = level.channels
            if index > 0:
                blocks.append(resampler(channels, kind="up"))
            self.up.append(blocks)

    def through(
        self, x: Tensor, run: Run, *, enter: Callable[[Tensor, int], Tensor] | None = None
    ) -> Tensor:
        """The stem's feature maps (B, C, H, W), passed through all blocks: (B, C', H, W).

        Args:
            x: feature maps of the stem.
            run: calls one block.
            enter: `(x, level index) -> x`, called where a level begins on the way down.
        """
        skips = [x]
        for index, blocks in enumerate(self.down):
            x = x if enter is None else enter(x, index)
            for block in cast(nn.ModuleList, blocks):
                x = run(block, x)
                skips.append(x)
        for block in self.middle:
            x = run(block, x)
        for index, blocks in enumerate(self.up):
            *joining, last = cast(nn.ModuleList, blocks)
            for block in joining:
                x = run(block, torch.cat((x, skips.pop()), dim=1))
            finest = index + 1 == len(self.up)  # there the last block takes a skip; else it doubles
            x = run(last, torch.cat((x, skips.pop()), dim=1) if finest else x)
        return x
