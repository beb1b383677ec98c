"""Sources and masks of requests: decoded, brought to the size asked for, and the hole in them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Mask
from calotype.serving.front.uploads import (
    Fit,
    Role,
    Upload,
    bytes_of,
    decode,
    fitted,
    hole_from_mask,
)
from calotype.serving.sdapi.fields import ImageToImage

_FITS: tuple[Fit, ...] = ("stretch", "crop", "fill", "stretch")  # by `resize_mode`


@dataclass(frozen=True)
class Edited:
    """What an edit begins with.

    Attributes:
        source: of the size that was asked for.
        hole: where it is to change; None = everywhere.
        padding: what `inpaint_full_res_padding` means, as a fraction of the hole; None = our own.
    """

    source: Upload
    hole: Mask | None = None
    padding: float | None = None


async def upload_of(text: str, field: str) -> Upload:
    """An image in base64 or a data URL, of a field of theirs.

    Raises:
        ApiError: it is none; the field is named.
    """
    role: Role = "mask" if field == "mask" else "image"
    try:
        return await decode(await asyncio.to_thread(bytes_of, text, role=role), role=role)
    except ApiError as error:
        if error.param is not None:
            error.message, error.param = f"{field}: {error.message}", field
        raise


async def edited(call: ImageToImage) -> Edited:
    """The source of a request, and the hole in it.

    Raises:
        ApiError: there is not one image, or something does not fit.
    """
    images = call.init_images or []
    if len(images) != 1:
        got = f"got {len(images)} init_images; expected one, as base64 or a data URL"
        raise ApiError(400, got, code="invalid_value", param="init_images")
    source = await upload_of(images[0], "init_images")
    mask = None if call.mask is None else await upload_of(call.mask, "mask")
    return await asyncio.to_thread(_prepared, call, source, mask)


def _prepared(call: ImageToImage, source: Upload, mask: Upload | None) -> Edited:
    width, height = call.width or source.width, call.height or source.height
    fit = _FITS[call.resize_mode or 0]
    source = fitted(source, width, height, fit)
    if mask is None:
        return Edited(source)
    mask = fitted(mask, width, height, fit)
    invert = bool(call.inpainting_mask_invert)
    hole = hole_from_mask(mask, source, invert=invert, opaque=True)
    return Edited(source, hole, padding_of(hole, call.inpaint_full_res_padding))


def padding_of(hole: Mask, pixels: int | None) -> float | None:
    """Pixels round a hole as a fraction of it; None = our own.

    Their clients send 0 unasked, which would hide all that is round the hole.
    """
    if not pixels:
        return None
    inside = np.frombuffer(hole.values, np.uint8).reshape(hole.height, hole.width) > 0
    side = max(np.ptp(np.flatnonzero(inside.any(axis))) + 1 for axis in (0, 1))
    return min(pixels / float(side), 100.0)
