"""T5 as DeepFloyd IF was trained with it: 77 states, those of padding among them.

The empty caption is encoded like any other; it is no null caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from calotype.conditioning import TextEmbedding
from calotype.text.encoder import check_dtype, clean_captions, pad_tokens
from calotype.text.pretrained import load_pipeline_text
from calotype.text.t5 import MODEL_TYPES

PADDED_LENGTH = 77


class PaddedT5TextEncoder:
    """Frozen T5 of a diffusers folder: lower-cased captions to states (B, 77, D), mask all True.

    The encoder itself does not attend to padding; the networks do.
    """

    max_tokens = PADDED_LENGTH
    encodes_empty = True

    def __init__(self, folder: str, *, dtype: torch.dtype = torch.float32) -> None:
        """Load from `folder`/text_encoder and `folder`/tokenizer.

        Raises:
            MissingExtra: transformers is not installed.
            ConfigError: not a T5, or `dtype` not float32 or bfloat16.
            CalotypeError: files are missing or damaged.
        """
        check_dtype(dtype, "t5_padded")
        self.spec = f"t5_padded:{folder}"
        self._loaded = load_pipeline_text(folder, MODEL_TYPES, dtype=dtype)
        self.embed_dim = int(self._loaded.model.config.d_model)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, tokenizer, length and dtype; reads all weights once."""
        return self._loaded.fingerprint("t5_padded 1", self.max_tokens)

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        texts = [text.lower() for text in clean_captions(captions, self.max_tokens)]
        rows = self._loaded.tokenizer(texts, truncation=True, max_length=PADDED_LENGTH)["input_ids"]
        # One row more than the longest would be, so that every batch is padded to 77.
        full = [*rows, [0] * PADDED_LENGTH]
        ids, mask = (part[:-1] for part in pad_tokens(full))
        states = self._loaded.run(ids, mask).last_hidden_state.float()
        return TextEmbedding(states, torch.ones_like(mask, device=states.device))
