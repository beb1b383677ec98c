"""Captions as token ids, for networks that carry a text transformer of their own (GLIDE).

Such a network was trained together with its transformer, so what stands between them and the
captions is only the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from calotype.conditioning import TokenIds
from calotype.text.byte_pair import load_caption_bpe, load_clip_bpe
from calotype.text.encoder import (
    CHARACTERS_PER_TOKEN,
    check_max_tokens,
    clean_captions,
    digest,
    pad_tokens,
)
from calotype.text.tokenizer_folder import tokenizer_sha256


class CaptionTokens:
    """Ids of GLIDE's byte-pair tokens: a `Tokenizer`; what fills up is the network's affair.

    White space at both ends of a caption counts, as it does in the reference; a caption of white
    space alone is the null caption.
    """

    def __init__(self, folder: str, *, max_tokens: int = 128) -> None:
        """Read the vocabulary files in `folder`; see `load_caption_bpe`.

        Raises:
            ConfigError: `max_tokens` is out of range.
            CalotypeError: files are missing or damaged.
        """
        self.spec = f"glide:{folder}"
        self.max_tokens = check_max_tokens(max_tokens, lowest=1, highest=None, encoder="glide")
        self._folder = Path(folder)
        self._bpe = load_caption_bpe(self._folder)
        self.vocabulary_size = self._bpe.vocabulary_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the vocabulary and the length."""
        # Not of `tokenizers`' description of it, which changes with its version.
        return digest(["calotype glide 2", tokenizer_sha256(self._folder), str(self.max_tokens)])

    def __call__(self, captions: Sequence[str]) -> TokenIds:
        """Encode; see `Tokenizer`."""
        stripped = clean_captions(captions, self.max_tokens)
        ids = [
            self._ids(caption) if text else []
            for caption, text in zip(captions, stripped, strict=True)
        ]
        return TokenIds(*pad_tokens(ids))

    def _ids(self, caption: str) -> list[int]:
        head = caption[: self.max_tokens * CHARACTERS_PER_TOKEN]
        text = head.encode("utf-8", errors="replace").decode("utf-8")
        return self._bpe.encode(text)[: self.max_tokens]


class NoisedClipTokens:
    """Ids of CLIP's byte-pair tokens between two marks, as GLIDE's noised CLIP reads them.

    A `Tokenizer`; the empty caption is the two marks.
    """

    def __init__(self, folder: str, *, max_tokens: int = 77) -> None:
        """Read `bpe_simple_vocab_16e6.txt` in `folder`; errors as of `CaptionTokens`."""
        self.spec = f"glide_clip:{folder}"
        self.max_tokens = check_max_tokens(max_tokens, lowest=3, highest=None, encoder="glide_clip")
        self._bpe = load_clip_bpe(Path(folder))
        self.vocabulary_size = self._bpe.vocabulary_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the vocabulary and the length."""
        return digest(["calotype glide_clip 1", self._bpe.description, str(self.max_tokens)])

    def __call__(self, captions: Sequence[str]) -> TokenIds:
        """Encode; see `Tokenizer`."""
        return self._bpe.tokens(clean_captions(captions, self.max_tokens), self.max_tokens)
