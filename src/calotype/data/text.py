"""Captions and names as they lie in files: UTF-8 mostly, UTF-16 where a byte-order mark says so."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

MAX_CAPTION_BYTES = 16_000_000
"""A larger file beside an image is no caption."""

_REPLACEMENT = "\ufffd"
# Those of UTF-32 begin as those of UTF-16 do.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class DecodedText:
    """Text, and whether something in it was no text and had to be replaced."""

    text: str
    replaced: bool


def decode_text(data: bytes) -> DecodedText:
    """Decode by the byte-order mark, else as UTF-8; what is no text becomes U+FFFD.

    NULs are no text: they are what UTF-16 without a mark looks like.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        text, replaced = data.decode(encoding), False
    except UnicodeDecodeError:
        text, replaced = data.decode(encoding, "replace"), True
    return DecodedText(text.replace("\0", _REPLACEMENT), replaced or "\0" in text)


def decode_caption(data: bytes) -> DecodedText:
    """As `decode_text`; empty where half of it or more is no text: another encoding would be."""
    decoded = decode_text(data)
    if 0 < len(decoded.text) <= 2 * decoded.text.count(_REPLACEMENT):
        return DecodedText("", True)
    return decoded


def has_replacement(text: str) -> bool:
    """Whether something in a part of a text was replaced, if something in the whole was."""
    return _REPLACEMENT in text


def encodable(name: str) -> str:
    r"""A name that UTF-8 can say, another for each: one that it can is kept.

    Bytes of file names that are no UTF-8 are written as `\xe9`, after `./`, with which no name
    of a file within a folder begins.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        data = name.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
        escaped = data.decode("utf-8", "backslashreplace")
        return f"./{escaped}"
    return name
