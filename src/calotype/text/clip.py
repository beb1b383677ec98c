"""Text encoder of CLIP models (Radford et al. 2021): the penultimate layer's states.

The last layer serves the contrastive loss and is poorer in detail, hence the one before it, as
in DALL-E 2's and later open models. Its states are taken as they are, without the final
LayerNorm: the networks normalise text themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from calotype.conditioning import TextEmbedding
from calotype.text.encoder import check_dtype, check_max_tokens, embed_ids
from calotype.text.pretrained import load_pretrained

_MODEL_TYPES = {"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}


class CLIPTextEncoder:
    """Frozen CLIP text model: captions to penultimate states (B, L, D) float32.

    Start and end marks are tokens too. Of a folder with a whole CLIP, the text model is read.
    """

    def __init__(
        self,
        name: str,
        *,
        max_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        allow_download: bool = False,
    ) -> None:
        """Load from the folder `name`, or from the hub cache; `max_tokens` None is all it can.

        Raises:
            MissingExtra: transformers is not installed.
            ConfigError: not a CLIP, or `max_tokens` or `dtype` out of range.
            CalotypeError: files are missing or damaged.
        """
        check_dtype(dtype, "clip")
        self.spec = f"clip:{name}"
        self._loaded = load_pretrained(
            name, _MODEL_TYPES, dtype=dtype, allow_download=allow_download
        )
        config = self._loaded.model.config
        longest = int(config.max_position_embeddings)
        self.max_tokens = check_max_tokens(
            longest if max_tokens is None else max_tokens, lowest=3, highest=longest, encoder="clip"
        )
        self._loaded.model.to(device)
        self.embed_dim = int(config.hidden_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, tokenizer, length and dtype; reads all weights once."""
        return self._loaded.fingerprint("clip 1", self.max_tokens)

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        ids = self._loaded.token_ids(captions, self.max_tokens)
        return embed_ids(ids, self.embed_dim, self._states)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        # Attention is causal and padding comes last: what pads does not matter, if it is legal.
        found = self._loaded.run(ids, mask, output_hidden_states=True)
        states: Tensor = found.hidden_states[-2]
        return states
