"""The text room: captions come in; `TextEmbedding`s go out, of frozen encoders, or `TokenIds`.

`build_text_encoder` makes an encoder from the string that recipes hold; `store` keeps embeddings
computed ahead. May import `conditioning`, `config` and `errors`. transformers is imported only
when a T5 or CLIP encoder is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calotype.errors import ConfigError
from calotype.text.encoder import TextEncoder, Tokenizer

__all__ = ["TextEncoder", "Tokenizer", "build_text_encoder", "encodes_empty"]

_EXPECTED = (
    "minilm, minilm:<folder>, t5:<folder or name>, clip:<folder or name>, t5_padded:<folder>, "
    "clip_pooled:<folder>, clip_ids:<folder>, glide:<folder>, glide_clip:<folder>, bytes:<width> "
    "or none"
)


def build_text_encoder(
    spec: str, *, max_tokens: int | None = None, device: str = "cpu"
) -> TextEncoder | Tokenizer | None:
    """The encoder that `spec` names; None for "none" (an unconditional model).

    `max_tokens` None is the encoder's own default: 128 for minilm and bytes, 256 for T5, the
    model's limit (77) for CLIP. `device` is where minilm, t5 and clip compute; the others stay on
    the CPU.

    Raises:
        ConfigError: `spec` names no encoder, or `max_tokens` is out of its range.
        CalotypeError: its files are missing or damaged.
    """
    kind, _, name = spec.partition(":")
    limit: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    if spec == "none":
        return None
    if kind == "minilm" and spec != "minilm:":
        from calotype.text.minilm import MiniLMTextEncoder

        return MiniLMTextEncoder(Path(name) if name else None, device=device, **limit)
    if kind == "bytes" and name.isascii() and name.isdecimal() and len(name) < 9:
        from calotype.text.byte import ByteTextEncoder

        return ByteTextEncoder(int(name), **limit)
    if kind in ("t5", "t5_padded") and name:
        from calotype.text import t5, t5_padded

        if kind == "t5_padded":
            return t5_padded.PaddedT5TextEncoder(name)
        return t5.T5TextEncoder(name, device=device, **limit)
    if kind in ("clip", "clip_pooled") and name:
        from calotype.text import clip, clip_pooled

        if kind == "clip_pooled":
            return clip_pooled.PooledCLIPTextEncoder(name)
        return clip.CLIPTextEncoder(name, device=device, **limit)
    if kind == "clip_ids" and name:
        from calotype.text.clip_ids import ClipTokens

        return ClipTokens(name, **limit)
    if kind in ("glide", "glide_clip") and name:
        from calotype.text.glide import CaptionTokens, NoisedClipTokens

        return (CaptionTokens if kind == "glide" else NoisedClipTokens)(name, **limit)
    raise ConfigError(f"text_encoder: got {spec!r}, expected {_EXPECTED}; change the setting")


def encodes_empty(encoder: TextEncoder | Tokenizer | str | None) -> bool:
    """Whether the empty caption has states of its own, and is no null caption.

    So it is for published models that were trained on it; their encoders say so.
    """
    if isinstance(encoder, str):
        return encoder.partition(":")[0] in ("t5_padded", "clip_pooled")
    return bool(getattr(encoder, "encodes_empty", False))
