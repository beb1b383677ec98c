"""T5 as DeepFloyd IF was trained with it: 77 states, those of padding among them.

The empty caption is encoded like any other; it is no null caption.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from calotype.conditioning import TextEmbedding
from calotype.text.encoder import clean_captions, pad_tokens
from calotype.text.t5 import T5TextEncoder


class PaddedT5TextEncoder(T5TextEncoder):
    """Frozen T5 of a diffusers folder: lower-cased captions to states (B, 77, D), mask all True.

    The encoder itself does not attend to padding; the networks do.
    """

    kind = "t5_padded"
    default_tokens = 77
    in_pipeline = True
    encodes_empty = True

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        length = self.max_tokens
        texts = [text.lower() for text in clean_captions(captions, length)]
        rows = self._loaded.tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        # One row more than the longest would be, so that every batch is padded.
        ids, mask = (part[:-1] for part in pad_tokens([*rows, [0] * length]))
        states = self._states(ids, mask).float()
        return TextEmbedding(states, torch.ones_like(mask, device=states.device))
