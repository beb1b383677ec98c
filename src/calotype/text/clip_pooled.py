"""CLIP's text model as unCLIP models take it: its embedding, then the last layer's states.

The empty caption is encoded like any other; it is no null caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch

from calotype.conditioning import TextEmbedding
from calotype.errors import ConfigError
from calotype.text.encoder import clean_captions
from calotype.text.pretrained import PretrainedTextEncoder


class PooledCLIPTextEncoder(PretrainedTextEncoder):
    """Frozen CLIP text model of a diffusers folder: captions to (B, 1 + 77, D).

    The first token is the projected embedding; the others are states after the final LayerNorm,
    of padding, too, which the mask leaves out.
    """

    kind = "clip_pooled"
    has_positions = True
    in_pipeline = True
    encodes_empty = True
    model_types = MappingProxyType(
        dict.fromkeys(("clip", "clip_text_model"), "CLIPTextModelWithProjection")
    )

    def __init__(self, folder: str, *, dtype: torch.dtype = torch.float32) -> None:
        """Load as the base does; raises `ConfigError` as well where the widths are two."""
        super().__init__(folder, dtype=dtype)
        config = self._loaded.model.config
        if int(config.projection_dim) != self.embed_dim:
            raise ConfigError(
                f"clip_pooled: got states of width {config.hidden_size} and an embedding of "
                f"{config.projection_dim}; expected one width"
            )

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
