"""Captions as ids of CLIP's byte-pair tokens, for a CLIP with a text tower of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from calotype.conditioning import TokenIds
from calotype.text.encoder import check_max_tokens, clean_captions, digest, pad_tokens
from calotype.text.pretrained import load_tokenizer, tokenizer_text


class ClipTokens:
    """Ids between a start and an end mark, as `transformers` makes them: a `Tokenizer`.

    The empty caption is the two marks: CLIP was trained on it.
    """

    def __init__(self, name: str, *, max_tokens: int = 77) -> None:
        """Read the tokenizer in the folder `name`, or in the hub cache.

        Raises:
            MissingExtra: transformers is not installed.
            ConfigError: `max_tokens` is out of range.
            CalotypeError: files are missing or damaged.
        """
        self.spec = f"clip_ids:{name}"
        self.max_tokens = check_max_tokens(max_tokens, lowest=3, highest=None, encoder="clip_ids")
        self._tokenizer = load_tokenizer(name)
        self.vocabulary_size = len(self._tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the vocabulary and the length."""
        return digest(["clip_ids 1", tokenizer_text(self._tokenizer), str(self.max_tokens)])

    def __call__(self, captions: Sequence[str]) -> TokenIds:
        """Encode; see `Tokenizer`."""
        texts = clean_captions(captions, self.max_tokens)
        rows = self._tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        return TokenIds(*pad_tokens([list(row) for row in rows]))
