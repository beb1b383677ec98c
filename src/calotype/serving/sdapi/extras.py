"""Routes of single images that come in: larger versions of them, and what is written in them."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from html import escape
from typing import Any

from fastapi import APIRouter
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from calotype.cascade.provenance import parameters_text
from calotype.serving.front.context import hub_of
from calotype.serving.front.errors import ApiError
from calotype.serving.front.recall import parameters_of
from calotype.serving.front.uploads import Upload, fitted
from calotype.serving.job import LEAST_SIDE, MOST_PROMPT, MOST_SIDE, JobRequest
from calotype.serving.sdapi.answering import (
    NOBODY,
    as_json,
    made,
    submitted,
    text_of,
    texts_of,
)
from calotype.serving.sdapi.desk import served
from calotype.serving.sdapi.fields import Extras, PngInfo
from calotype.serving.sdapi.ignored import header_of, without_effect
from calotype.serving.sdapi.images import upload_of
from calotype.serving.sdapi.lists import OWN_UPSCALER, PLAIN_UPSCALERS
from calotype.serving.sdapi.shapes import ERRORS

router = APIRouter(prefix="/sdapi/v1", responses=ERRORS)
_THEIR_FACTOR = 2.0
_THEIR_SIDE = 512
_PLAIN = ("Lanczos", "Nearest")
Size = tuple[int, int]  # width and height


@router.post("/extra-single-image", response_model=None)
async def extra_single_image(request: Request, asked: Extras) -> Response:
    """A larger version of an image, by the model or by plain resampling."""
    source = await upload_of(asked.image, "image")
    upscaler, ignored = asked.upscaler_1 or "None", without_effect(asked.others)
    plain: str | None = None
    if upscaler == "None":
        plain, size = PLAIN_UPSCALERS[0], (source.width, source.height)
    else:
        size, source = await asyncio.to_thread(_framed, source, asked)
        plain = upscaler if upscaler in _PLAIN else None
        if size[0] <= source.width and size[1] <= source.height:
            plain = plain or "Lanczos"  # models only enlarge
    if plain is not None:
        text: str | None = await asyncio.to_thread(_resampled, source, size, plain)
    else:
        text = await _enlarged(request, source, size)
    if text is None:
        return NOBODY
    used = plain or OWN_UPSCALER
    told = f"Upscaler: {used}, Size: {size[0]}x{size[1]}"
    if used != upscaler:
        told += f", Upscaler asked for: {upscaler}"
        ignored.append("upscaler_1")
    return await as_json({"html_info": escape(told), "image": text}, header_of(ignored))


@router.post("/png-info", response_model=None)
async def png_info(asked: PngInfo) -> Response:
    """What an image says of how it was made, ours or theirs; all empty where it says nothing."""
    upload = await upload_of(asked.image, "image")
    text = upload.parameters
    if text is None and upload.recipe is not None:
        text = _text(upload.recipe)
    items: dict[str, Any] = {} if text is None else {"parameters": text}
    found = {"info": text or "", "items": items, "parameters": parameters_of(text or "")}
    return await as_json(found, header_of(without_effect(asked.others)))


def _text(recipe: dict[str, Any]) -> str | None:
    try:
        return parameters_text(recipe)
    except (AttributeError, LookupError, TypeError):  # a recipe may say anything
        return None


def _framed(source: Upload, asked: Extras) -> tuple[Size, Upload]:
    """The size that is asked for, and the source, cut to its shape where that is asked, too.

    Raises:
        ApiError: it is too small or too large.
    """
    factor = asked.upscaling_resize or _THEIR_FACTOR
    if asked.resize_mode == 1:
        width = asked.upscaling_resize_w or _THEIR_SIDE
        height = asked.upscaling_resize_h or _THEIR_SIDE
        factor = max(width / source.width, height / source.height)
        if asked.upscaling_crop is not False:
            kept = (max(1, round(side / factor)) for side in (width, height))
            return (width, height), _cropped(source, *kept)
    size = round(source.width * factor), round(source.height * factor)
    if min(size) < LEAST_SIDE or max(size) > MOST_SIDE:
        got = f"got {source.width}x{source.height} to make it {size[0]}x{size[1]}; expected"
        raise ApiError(
            400,
            f"{got} {LEAST_SIDE} to {MOST_SIDE} a side",
            code="invalid_value",
            param="upscaling_resize",
        )
    return size, source


def _cropped(source: Upload, width: int, height: int) -> Upload:
    """The middle of a source, pixel for pixel."""
    width, height = min(width, source.width), min(height, source.height)
    left, top = (source.width - width) // 2, (source.height - height) // 2
    pixels = source.pixels[top : top + height, left : left + width]
    return replace(source, width=width, height=height, rgba=pixels.tobytes())


def _resampled(source: Upload, size: Size, name: str) -> str:
    if name == "Nearest":
        pixels = Image.fromarray(source.pixels).resize(size, Image.Resampling.NEAREST)
    else:
        pixels = Image.fromarray(fitted(source, *size, "stretch").pixels)
    buffer = io.BytesIO()
    is_opaque = bool((source.pixels[..., 3] == 255).all())
    (pixels.convert("RGB") if is_opaque else pixels).save(buffer, "PNG", compress_level=4)
    return text_of(buffer.getvalue())


async def _enlarged(request: Request, source: Upload, size: Size) -> str | None:
    """A version by the model, as base64; None = the client has gone.

    Raises:
        ApiError: it cannot be made.
    """
    caption = (source.recipe or {}).get("caption")
    wanted = JobRequest(
        kind="upscale",
        model=served(request).model(None)["name"],
        prompt=caption[:MOST_PROMPT] if isinstance(caption, str) else "",
        size=size,
    )
    job = await submitted(request, wanted, source)
    try:
        images = await made(request, job)
        if images is None:
            return None
        if not images:
            raise ApiError(409, "it was interrupted before it began", code="cancelled")
        return (await texts_of(request, job, images))[0]
    finally:
        hub_of(request).release(job)
