"""Seeds of everything random in training, as pure functions of (seed, position).

The position is the number of the first image of a step in the endless shuffled stream, so a run
that is resumed there gets the same numbers without any state to restore.
"""

from __future__ import annotations

import hashlib
from typing import Self

import torch
from torch import Tensor


def mixed_seed(seed: int, position: int, purpose: str) -> int:
    """A 63-bit seed from a seed, a position and a purpose; no two purposes share a stream."""
    text = f"calotype training {purpose} {seed} {position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def seed_networks(seed: int, position: int, *, part: int = 0) -> None:
    """Seed torch's global generator, which dropout inside networks uses."""
    torch.manual_seed(mixed_seed(seed, position, f"network {part}"))


class Rows:
    """The base of records with one row an example: sequences, the first of which is never None."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        kept = {name: None if one is None else one[rows] for name, one in vars(self).items()}
        return type(self)(**kept)
