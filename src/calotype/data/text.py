"""Captions as they lie in files: UTF-8, mostly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecodedText:
    """Text, and whether bytes that are no UTF-8 had to be replaced in it."""

    text: str
    replaced: bool


def decode_text(data: bytes) -> DecodedText:
    """Decode UTF-8, with or without a byte-order mark; what is not becomes U+FFFD."""
    try:
        return DecodedText(data.decode("utf-8-sig"), False)
    except UnicodeDecodeError:
        return DecodedText(data.decode("utf-8-sig", "replace"), True)
