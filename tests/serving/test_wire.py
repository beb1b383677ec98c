"""Frames between the front and the engine come back as they were, and nothing else passes."""

import asyncio
import io

import pytest

from calotype.errors import CalotypeError
from calotype.serving import wire


def _bytes(head, blobs=()):
    return b"".join(bytes(piece) for piece in wire.encode(head, blobs))


def test_what_is_sent_comes_back_and_the_end_is_none():
    sent = [({"op": "step", "id": "é"}, ()), ({"op": "image"}, (b"ab", b"", memoryview(b"cde")))]
    stream = io.BytesIO(b"".join(_bytes(*one) for one in sent))
    first, second = wire.read(stream), wire.read(stream)
    assert (first.op, first.head["id"], first.blobs) == ("step", "é", ())
    assert second.blobs == (b"ab", b"", b"cde")
    assert wire.read(stream) is None


def test_an_event_loop_reads_the_same():
    async def read(data):
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        return await wire.read_async(stream), await wire.read_async(stream)

    message, end = asyncio.run(read(_bytes({"op": "image"}, [b"xyz"])))
    assert message.blobs == (b"xyz",) and end is None


def test_a_cut_frame_is_the_end():
    data = _bytes({"op": "image"}, [b"xyz"])
    for length in range(len(data)):
        assert wire.read(io.BytesIO(data[:length])) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 40,
        wire._LENGTHS.pack(2, 0) + b"[]",
        wire._LENGTHS.pack(2, 0) + b"{}",
        wire._LENGTHS.pack(14, 3) + b'{"blobs": [1]}' + b"xyz",
        wire._LENGTHS.pack(16, 3) + b'{"blobs": ["a"]}' + b"xyz",
    ],
)
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(CalotypeError, match="got"):
        wire.read(io.BytesIO(data))
