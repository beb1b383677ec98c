"""CLIP's text model as unCLIP models take it: its embedding, then the last layer's states.

The empty caption is encoded like any other; it is no null caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from calotype.conditioning import TextEmbedding
from calotype.errors import ConfigError
from calotype.text.encoder import check_dtype, clean_captions
from calotype.text.pretrained import load_pipeline_text

_MODEL_TYPES = {
    "clip": "CLIPTextModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
}


class PooledCLIPTextEncoder:
    """Frozen CLIP text model of a diffusers folder: captions to (B, 1 + 77, D).

    The first token is the projected embedding; the others are states after the final LayerNorm,
    of padding, too, which the mask leaves out.
    """

    encodes_empty = True

    def __init__(self, folder: str, *, dtype: torch.dtype = torch.float32) -> None:
        """Load from `folder`/text_encoder and `folder`/tokenizer.

        Raises:
            MissingExtra: transformers is not installed.
            ConfigError: not a CLIP with one width of states and embedding.
            CalotypeError: files are missing or damaged.
        """
        check_dtype(dtype, "clip_pooled")
        self.spec = f"clip_pooled:{folder}"
        self._loaded = load_pipeline_text(folder, _MODEL_TYPES, dtype=dtype)
        config = self._loaded.model.config
        self.embed_dim = int(config.projection_dim)
        if int(config.hidden_size) != self.embed_dim:
            raise ConfigError(
                f"clip_pooled: got states of width {config.hidden_size} and an embedding of "
                f"{self.embed_dim}; expected one width"
            )
        self.max_tokens = int(config.max_position_embeddings)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, tokenizer, length and dtype; reads all weights once."""
        return self._loaded.fingerprint("clip_pooled 1", self.max_tokens)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Encode; see `TextEncoder`."""
        texts = clean_captions(captions, self.max_tokens)
        found = self._loaded.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        model = self._loaded.model
        output = model(found["input_ids"].to(model.device))
        tokens = torch.cat((output.text_embeds[:, None], output.last_hidden_state), dim=1).float()
        mask = torch.nn.functional.pad(found["attention_mask"].bool(), (1, 0), value=True)
        return TextEmbedding(tokens, mask.to(model.device))
