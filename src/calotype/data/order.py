"""The order of examples without state: example = f(seed, position), for positions without end.

Each epoch (as many positions as there are examples) is a permutation of its own, computed for
any position at once: a Feistel network on the smallest even number of bits that holds the length,
walked until it lands inside (format-preserving encryption: Black and Rogaway 2002, section 4,
"cycle walking"). Nothing is stored, so resuming and sharing the work need only the position.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]
Ints = NDArray[np.int64]

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """Independent random streams at one position."""

    CAPTION = 1
    ROW = 2
    COLUMN = 3
    FLIP = 4


def mix(x: UInts) -> UInts:
    """Scramble 64-bit numbers one to one: SplitMix64 (Steele et al. 2014, figure 17)."""
    z = x + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def randint(seed: int, positions: Ints, *, stream: Stream, below: int) -> Ints:
    """Uniform integers in [0, below), a pure function of seed, position and stream.

    `below` is at most 2^32; positions are (N,).
    """
    key = mix(np.array([seed, int(stream)], dtype=np.uint64))
    bits = mix(mix(positions.astype(np.uint64) ^ key[0]) ^ key[1])
    return ((bits >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)


def shuffled_index(positions: Ints, *, seed: int, length: int, skip: Ints | None = None) -> Ints:
    """Numbers of the examples at these positions.

    Args:
        positions: (N,), may be negative: the epoch before the first.
        seed: of the whole order.
        length: count of examples, at least 1.
        skip: (N,) how many places further in the same epoch's permutation to look, going round;
            how a broken image is replaced while the order stays a pure function.
    """
    epoch, rank = np.divmod(positions.astype(np.int64), np.int64(length))
    if skip is not None:
        rank = (rank + skip) % length
    key = mix(mix(np.full(1, seed, dtype=np.uint64)) ^ epoch.astype(np.uint64))
    half_bits = max(1, -(-int(length - 1).bit_length() // 2))
    place = _feistel(rank.astype(np.uint64), key, half_bits)
    while (outside := place >= np.uint64(length)).any():
        place[outside] = _feistel(place[outside], key[outside], half_bits)
    return place.astype(np.int64)


def _feistel(x: UInts, key: UInts, half_bits: int) -> UInts:
    """One-to-one map of [0, 4^half_bits), different for every key."""
    shift, low = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = x >> shift, x & low
    for turn in range(_ROUNDS):
        scrambled = mix(right ^ mix(key + np.uint64(turn)))
        left, right = right, left ^ (scrambled >> np.uint64(32) & low)
    return left << shift | right
