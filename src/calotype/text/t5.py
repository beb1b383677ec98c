"""Text encoders of the T5 family: t5, t5-v1_1, flan-t5, mT5, umT5 and byT5, of any size.

Imagen's own encoder is T5-XXL, frozen (Saharia et al. 2022, section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from calotype.conditioning import TextEmbedding
from calotype.text.encoder import check_dtype, check_max_tokens, embed_ids
from calotype.text.pretrained import load_pretrained

MODEL_TYPES = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}


class T5TextEncoder:
    """Frozen T5 encoder: captions to the last layer's states (B, L, D) float32.

    Positions are relative, so that captions may have any length up to `max_tokens` (the paper
    uses 128). Of a folder with encoder and decoder, the encoder is read. float16 is refused:
    T5's states leave its range.
    """

    def __init__(
        self,
        name: str,
        *,
        max_tokens: int = 256,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        allow_download: bool = False,
    ) -> None:
        """Load from the folder `name`, or from the hub cache.

        Raises:
            MissingExtra: transformers is not installed.
            ConfigError: not a T5, `max_tokens` below 2, or `dtype` not float32 or bfloat16.
            CalotypeError: files are missing or damaged.
        """
        self.max_tokens = check_max_tokens(max_tokens, lowest=2, highest=None, encoder="t5")
        check_dtype(dtype, "t5")
        self.spec = f"t5:{name}"
        self._loaded = load_pretrained(
            name, MODEL_TYPES, dtype=dtype, allow_download=allow_download
        )
        self._loaded.model.to(device)
        self.embed_dim = int(self._loaded.model.config.d_model)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, tokenizer, length and dtype; reads all weights once."""
        return self._loaded.fingerprint("t5 1", self.max_tokens)

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        ids = self._loaded.token_ids(captions, self.max_tokens)
        return embed_ids(ids, self.embed_dim, self._states)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self._loaded.run(ids, mask).last_hidden_state
        return states
