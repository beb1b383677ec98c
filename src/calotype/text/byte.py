"""Text encoder without a model: random but fixed byte embeddings plus sinusoidal positions.

It needs no files and next to no time: for tests, documentation and the `tiny` recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from calotype.conditioning import TextEmbedding
from calotype.errors import ConfigError
from calotype.text.encoder import (
    check_max_tokens,
    clean_captions,
    digest,
    embed_ids,
)

_LARGEST_DIM = 16384


class ByteTextEncoder:
    """One token for each UTF-8 byte of the caption, (B, L, embed_dim), unit variance a channel.

    The table comes from a hash function, not from a random generator, so that it is the same on
    every machine and with every version of torch.
    """

    def __init__(self, embed_dim: int, *, max_tokens: int = 128) -> None:
        """Build the table.

        Raises:
            ConfigError: `embed_dim` or `max_tokens` out of range.
        """
        if not 1 <= embed_dim <= _LARGEST_DIM:
            raise ConfigError(
                f"bytes: got width {embed_dim}, expected 1 to {_LARGEST_DIM}; write e.g. bytes:16"
            )
        self.embed_dim = embed_dim
        self.max_tokens = check_max_tokens(max_tokens, lowest=1, highest=None, encoder="bytes")
        self.spec = f"bytes:{embed_dim}"
        self.fingerprint = digest(["calotype bytes 1", str(embed_dim), str(max_tokens)])
        self._table = _byte_table(embed_dim)

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        texts = clean_captions(captions, self.max_tokens)
        ids = [list(text.encode()[: self.max_tokens]) for text in texts]
        return embed_ids(ids, self.embed_dim, self._states)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._table[ids] + sinusoidal_positions(ids.shape[1], self.embed_dim)


def _byte_table(embed_dim: int) -> Tensor:
    """(256, embed_dim) uniform numbers of mean 0 and variance 1, from SHAKE-256."""
    data = hashlib.shake_256(b"calotype byte table").digest(256 * embed_dim * 4)
    uniform = np.frombuffer(data, dtype="<u4").astype(np.float64) / 2**32
    table = (2.0 * uniform - 1.0) * np.sqrt(3.0)
    return torch.from_numpy(table.astype(np.float32)).reshape(256, embed_dim)


def sinusoidal_positions(length: int, embed_dim: int) -> Tensor:
    """Positions (length, embed_dim) of Vaswani et al. 2017, section 3.5: sines, then cosines."""
    half = (embed_dim + 1) // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :embed_dim].float()
