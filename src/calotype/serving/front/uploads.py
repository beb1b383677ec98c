"""Uploads: files of others become pixels, in a process of their own, or an error that says why.

Of a file nothing goes on but its pixels, upright and in sRGB, and what it says of how it was made.
Sizes for APIs that resize, and masks of the kinds that APIs know, are made here, too. Addresses are
never fetched.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.errors import CalotypeError
from calotype.serving import wire
from calotype.serving.front.decoded import check_room, count
from calotype.serving.front.decoding import MOST_PIXELS
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Mask

Role = Literal["image", "source", "mask"]
"""What a client calls it; colours of all but masks become sRGB."""
Fit = Literal["stretch", "crop", "fill"]
MOST_BYTES = 20 * 2**20
MOST_SECONDS = 30.0
"""For one file, from the start of its process to its last pixel."""
_AT_ONCE = 2  # processes; each may take `decoding.MOST_MEMORY`
_COMMAND = (sys.executable, "-P", "-m", "calotype.serving.front.decoding")
_PASSED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")  # of the environment
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_SCHEME = re.compile(r"\s*[a-z][a-z0-9+.\-]{0,20}:", re.IGNORECASE)
_A: dict[Role, str] = {"image": "an image", "source": "a source", "mask": "a mask"}
_SIMPLER = "expected an ordinary one: save it again as PNG"
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@dataclass(frozen=True)
class Upload:
    """A decoded file.

    Attributes:
        sha256: of the file as it came.
        width: in pixels, upright.
        height: in pixels, upright.
        rgba: height * width * 4 bytes, straight alpha, sRGB.
        recipe: that the file carries, if it is ours; it may say anything.
        parameters: text of AUTOMATIC1111's web UI, or of what writes as it does.
    """

    sha256: str
    width: int
    height: int
    rgba: bytes = field(repr=False)
    recipe: dict[str, Any] | None = None
    parameters: str | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 4), read-only."""
        return np.frombuffer(self.rgba, np.uint8).reshape(self.height, self.width, 4)


async def decode(data: bytes, *, role: Role) -> Upload:
    """A PNG, JPEG or WebP of one image, decoded in a process of its own.

    Raises:
        ApiError: it is another file, broken, too large, or takes too long; 429 where there are too
            many at once.
    """
    if not data:
        raise _refused(role, f"got an empty {role}; expected a PNG, JPEG or WebP file")
    if len(data) > MOST_BYTES:
        raise _too_large(role, f"{len(data):,}")
    if not data.startswith(_STARTS) and (data[:4], data[8:12]) != (b"RIFF", b"WEBP"):
        raise _refused(
            role,
            f"got a file as {role} that is no PNG, JPEG or WebP; expected one of them: save it as "
            "PNG",
        )
    turns = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    async with turns:
        check_room(_AT_ONCE * 4 * MOST_PIXELS)
        answer = await _decoded(data, role)
        if answer.op != "decoded" or len(answer.blobs) != 1:
            message = " ".join(str(answer.head.get("message")).split())
            raise _refused(role, message[:500])
        found = _checked(answer, role, hashlib.sha256(data).hexdigest())
        count(found)
    return found


def bytes_of(text: str, *, role: Role) -> bytes:
    """The file in a data URL or in bare base64.

    Raises:
        ApiError: it is neither, or too large; an address is not fetched.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head[-7:].lower() == ";base64":
            raise _refused(role, f"got a data URL as {role} that is not base64; expected base64")
    elif _SCHEME.match(text):
        raise _refused(
            role,
            f"got an address as {role}; expected base64 or a data URL: addresses are not fetched",
        )
    if len(text) > 4 * -(-MOST_BYTES // 3):
        raise _too_large(role, f"about {len(text) // 4 * 3:,}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(
            role, f"got {_A[role]} as text that is no base64; expected base64 or a data URL"
        ) from error


def fitted(upload: Upload, width: int, height: int, fit: Fit) -> Upload:
    """The upload at another size; takes a while for large ones: call it in a thread.

    Args:
        upload: decoded.
        width: in pixels.
        height: in pixels.
        fit: pull it to the size; cut off what stands over; or add what lacks, by repeating the
            pixels at its edges.
    """
    if (upload.width, upload.height) == (width, height):
        return upload
    image, box = Image.fromarray(upload.pixels), None
    wide, high, size = upload.width, upload.height, (width, height)
    if fit == "crop":
        scale = min(wide / width, high / height)
        left, top = (wide - width * scale) / 2, (high - height * scale) / 2
        right, bottom = left + width * scale, top + height * scale
        # Rounding may put it outside by a little, which Pillow refuses.
        box = (max(left, 0.0), max(top, 0.0), min(right, wide), min(bottom, high))
    elif fit == "fill":
        scale = min(width / wide, height / high)
        size = max(1, round(wide * scale)), max(1, round(high * scale))
    # Premultiplied: what is transparent has no colour that could seep into its neighbours.
    small = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS, box=box).convert("RGBA")
    pixels = np.asarray(small)
    if size != (width, height):
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        around = ((top, height - size[1] - top), (left, width - size[0] - left), (0, 0))
        pixels = np.pad(pixels, around, mode="edge")
    return replace(upload, width=width, height=height, rgba=pixels.tobytes())


def hole_from_mask(
    mask: Upload,
    source: Upload,
    *,
    invert: bool = False,
    threshold: int = 128,
    opaque: bool = False,
) -> Mask:
    """Where a source is to change: where its mask is white; by its alpha, if it has any.

    Args:
        mask: of the source's size.
        source: that is edited.
        invert: change the rest instead.
        threshold: from which value on a pixel counts as white.
        opaque: of a mask with alpha, what is opaque is the hole and not what is transparent.

    Raises:
        ApiError: it has another size, or nothing is to change.
    """
    check_sizes(mask, source)
    alpha = mask.pixels[..., 3]
    if (alpha < 255).any():
        grey = alpha if opaque else 255 - alpha
    else:
        grey = np.asarray(Image.fromarray(mask.pixels).convert("L"))
    hole = (grey < threshold) if invert else (grey >= threshold)
    if not hole.any():
        raise _refused(
            "mask", "got a mask in which nothing is to change; expected white where it is"
        )
    return _mask(hole, mask.sha256)


def hole_from_alpha(upload: Upload) -> Mask | None:
    """Where an image is wholly transparent, which is where it is to change; None = nowhere."""
    hole = upload.pixels[..., 3] == 0
    return _mask(hole, upload.sha256) if hole.any() else None


def check_sizes(mask: Upload, source: Upload) -> None:
    """Refuse a mask of another size than its source.

    Raises:
        ApiError: it has.
    """
    if (mask.width, mask.height) != (source.width, source.height):
        raise _refused(
            "mask",
            f"got a mask of {mask.width}x{mask.height} for an image of "
            f"{source.width}x{source.height}, as it is seen upright; expected one size",
        )


def _mask(hole: NDArray[np.bool_], sha256: str) -> Mask:
    height, width = hole.shape
    return Mask(sha256, width, height, (hole.astype(np.uint8) * 255).tobytes())


async def _decoded(data: bytes, role: Role) -> wire.Message:
    """What the process answers; it ends with this call, whatever happens."""
    own = {name: os.environ[name] for name in _PASSED if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        role,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**20,
        env={**own, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(MOST_SECONDS):
            with suppress(ConnectionError):  # it has died: that no answer comes says so
                process.stdin.write(data)
                await process.stdin.drain()
                process.stdin.close()
            answer = await wire.read_async(process.stdout)
    except TimeoutError as error:
        refusal = _refused(role, f"got {_A[role]} that takes too long to decode; {_SIMPLER}")
        refusal.retry = True  # its seconds of CPU were not used up: the machine is busy
        raise refusal from error
    except CalotypeError:
        answer = None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if answer is None:
        raise _refused(role, f"got {_A[role]} that takes too much memory or time; {_SIMPLER}")
    return answer


def _checked(answer: wire.Message, role: Role, sha256: str) -> Upload:
    """What a process answered that may have been taken over by what it decoded."""
    head, (rgba,) = answer.head, answer.blobs
    width, height = head.get("width"), head.get("height")
    recipe, parameters = head.get("recipe"), head.get("parameters")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        width = height = 0
    if len(rgba) != width * height * 4 or not rgba:
        raise _refused(role, f"got {_A[role]} that cannot be decoded; {_SIMPLER}")
    return Upload(
        sha256,
        width,
        height,
        rgba,
        recipe if isinstance(recipe, dict) else None,
        parameters if isinstance(parameters, str) else None,
    )


def _too_large(role: Role, size: str) -> ApiError:
    got = f"got {_A[role]} of {size} bytes; expected at most {MOST_BYTES:,}: shrink it"
    return _refused(role, got)


def _refused(role: Role, message: str) -> ApiError:
    return ApiError(400, message, code=f"invalid_{role}", param=role)
