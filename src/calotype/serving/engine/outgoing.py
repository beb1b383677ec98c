"""Frames on their way to the front: encoded beside the loop, written whole by one thread."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, BinaryIO

from calotype.serving import wire
from calotype.serving.engine.faults import inject
from calotype.serving.engine.files import encode_file, encode_preview
from calotype.serving.engine.image import Image, Look
from calotype.serving.engine.signing import Signer

_MOST_FRAMES = 256
_MOST_PIXELS = 16 * 1024 * 1024
"""Of finished images that are not encoded yet."""


class Outgoing:
    """What the loop sends; a `Sink`.

    Args:
        stream: to the front.
        metadata: whether files say how they were made.
        signer: signs them; None = nobody.
    """

    def __init__(
        self, stream: BinaryIO, *, metadata: bool = True, signer: Signer | None = None
    ) -> None:
        self._stream, self._metadata, self._signer = stream, metadata, signer
        self._frames: queue.Queue[list[bytes | memoryview] | None] = queue.Queue(_MOST_FRAMES)
        self._writer = threading.Thread(target=self._write, name="writing", daemon=True)
        self._previews = ThreadPoolExecutor(1, thread_name_prefix="previews")
        self._files = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._looks: dict[int, Future[None]] = {}
        self._finishing: deque[tuple[int, Future[None]]] = deque()
        self._writer.start()

    def tell(self, head: dict[str, Any]) -> None:
        """A message without pixels."""
        self._send(head)

    def show(self, image: Image, look: Look) -> None:
        """A preview; one of many is left out while the one before is not encoded yet."""
        before = self._looks.get(image.age)
        if image.order.looks.when == "steps" and before is not None and not before.done():
            return
        self._looks[image.age] = self._previews.submit(self._encode_look, image, look)

    def finish(self, image: Image) -> None:
        """A finished image; waits where many are not encoded yet."""
        assert image.made is not None
        pixels = int(image.made.pixels.shape[0] * image.made.pixels.shape[1])
        while self._finishing and (
            self._finishing[0][1].done()
            or sum(each for each, _ in self._finishing) + pixels > _MOST_PIXELS
        ):
            wait([self._finishing.popleft()[1]])
        before = self._looks.pop(image.age, None)
        future = self._files.submit(self._encode_image, image, before)
        self._finishing.append((pixels, future))

    def end(self, image: Image, head: dict[str, Any]) -> None:
        """The last word on an image that is not finished: after its previews, no others'."""
        before = self._looks.pop(image.age, None)
        if before is None or before.cancel():
            self._send(head)
        else:
            before.add_done_callback(lambda _: self._send(head))

    def close(self) -> None:
        """Write all that is on its way."""
        self._previews.shutdown()
        self._files.shutdown()
        self._frames.put(None)
        self._writer.join()

    def _encode_look(self, image: Image, look: Look) -> None:
        height, width = look.pixels.shape[:2]
        format = image.order.looks.format
        data = encode_preview(look.pixels, format)
        told = {"width": width, "height": height, "format": format}
        self._send({"op": "preview", **look.head, **told}, data)

    def _encode_image(self, image: Image, before: Future[None] | None) -> None:
        if before is not None:
            wait([before])  # the image is the last word
        made, order = image.made, image.order
        assert made is not None
        height, width = made.pixels.shape[:2]
        try:
            data = encode_file(
                made.pixels,
                made.recipe,
                format=order.request.format,
                compression=order.request.compression,
                metadata=self._metadata,
            )
            if self._signer is not None:
                data = self._signer.sign(data, order.request.format, made.recipe)
            inject(order.request.prompt, "file")
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            message = f"the image could not be encoded: {type(error).__name__}"
            self._send({"op": "failed", "id": order.id, "message": message, "kind": "internal"})
            return
        head = {
            "op": "image",
            "id": order.id,
            "recipe": made.recipe,
            "width": width,
            "height": height,
            "format": order.request.format,
            "seconds": round(time.monotonic() - image.began, 3),
            "batch": made.recipe["batch"],
        }
        self._send(head, data)

    def _send(self, head: dict[str, Any], *blobs: bytes) -> None:
        self._frames.put(wire.encode(head, blobs))

    def _write(self) -> None:
        for pieces in iter(partial(self._frames.get), None):
            try:
                for piece in pieces:
                    self._stream.write(piece)
                if self._frames.empty():
                    self._stream.flush()
            except OSError:  # the front has gone
                os._exit(0)
        self._stream.flush()
