"""What the front and the engine say to each other: JSON, and raw bytes behind it.

A frame is two lengths, of the head and of all blobs together, as 32-bit and 64-bit big-endian
numbers; the head as UTF-8 JSON, whose "blobs" lists the length of each blob; and the blobs. No
pickle: a frame can hold nothing but data.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from calotype.errors import CalotypeError

_LENGTHS = struct.Struct(">IQ")
MOST_HEAD = 8 * 2**20
MOST_BLOBS = 2**30
LAST_WORDS = ("image", "failed", "cancelled")
"""After one of these an engine says nothing more of an image."""


@dataclass(frozen=True)
class Message:
    """A frame: a JSON object, whose "op" says what it is, and raw bytes."""

    head: dict[str, Any]
    blobs: tuple[bytes, ...] = ()

    @property
    def op(self) -> str:
        """What it is."""
        return str(self.head.get("op"))


def encode(
    head: dict[str, Any], blobs: Sequence[bytes | memoryview] = ()
) -> list[bytes | memoryview]:
    """The pieces of a frame, in order; large blobs are not copied."""
    lengths = [len(memoryview(blob).cast("B")) for blob in blobs]
    text = json.dumps({**head, "blobs": lengths}, separators=(",", ":")).encode()
    return [_LENGTHS.pack(len(text), sum(lengths)), text, *blobs]


def read(stream: BinaryIO) -> Message | None:
    """The next frame; None = the other side has gone.

    Raises:
        CalotypeError: what comes is no frame.
    """
    start = stream.read(_LENGTHS.size)
    if len(start) < _LENGTHS.size:
        return None
    text, blobs = _checked(start)
    body = stream.read(text + blobs)
    return None if len(body) < text + blobs else _message(body, text)


async def read_async(stream: asyncio.StreamReader) -> Message | None:
    """As `read`, of an event loop's stream."""
    try:
        text, blobs = _checked(await stream.readexactly(_LENGTHS.size))
        return _message(await stream.readexactly(text + blobs), text)
    except asyncio.IncompleteReadError:
        return None


def _checked(start: bytes) -> tuple[int, int]:
    text, blobs = _LENGTHS.unpack(start)
    if text > MOST_HEAD or blobs > MOST_BLOBS:
        raise CalotypeError(f"got a frame of {text:,} and {blobs:,} bytes; the stream is no frame")
    return text, blobs


def _message(body: bytes, text: int) -> Message:
    try:
        head = json.loads(body[:text])
        lengths = head.pop("blobs")
        view, at, blobs = memoryview(body), text, []
        for length in lengths:
            blobs.append(bytes(view[at : at + length]))
            at += length
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CalotypeError("got a frame that is no JSON object with lengths of blobs") from error
    if at != len(body):
        raise CalotypeError(f"got {len(body) - text:,} bytes of blobs; the head says otherwise")
    return Message(head, tuple(blobs))
