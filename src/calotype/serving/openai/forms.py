"""Forms: texts that stand for numbers and the like, and the files of an image and its mask."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Mask
from calotype.serving.front.limits import FORM_LIMITS, MOST_FILES
from calotype.serving.front.uploads import Upload, check_sizes, decode, fitted, hole_from_alpha

_IMAGE = re.compile(r"image(\[\d*\])?")
_OF_STAGE = re.compile(r"stages\[([^\[\]]{1,20})\]\[([^\[\]]{1,40})\]")


@dataclass
class Form:
    """What a form says.

    Attributes:
        texts: its fields.
        image: the file that is changed.
        mask: where; None = not said.
    """

    texts: dict[str, Any] = field(default_factory=dict)
    image: bytes = field(default=b"", repr=False)
    mask: bytes | None = field(default=None, repr=False)


async def read_form(request: Request) -> Form:
    """The form of a request, with one image.

    Raises:
        ApiError: it is none, or its files are not as expected.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        message = "got a body that is no form; expected multipart/form-data with an image"
        raise ApiError(415, message, code="unsupported_media_type")
    found = Form()
    images: list[bytes] = []
    async with _opened(request) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                _add_text(found.texts, name, value)
            elif _IMAGE.fullmatch(name):
                images.append(await value.read())
            elif name == "mask":
                found.mask = await value.read()
            else:
                found.texts[name] = "a file"  # which is refused, or has no effect
    if len(images) != 1:
        message = f"got {len(images) or 'no'} images; one image and one mask are taken, as files"
        raise ApiError(400, message, code="invalid_value", param="image")
    found.image = images[0]
    return found


@asynccontextmanager
async def _opened(request: Request) -> AsyncIterator[FormData]:
    """A form; the third file ends the reading."""
    try:
        form = await request.form(**FORM_LIMITS)
    except HTTPException as error:
        if "many files" not in str(error.detail):
            raise
        message = f"got more than {MOST_FILES} files; one image and one mask are taken"
        raise ApiError(400, message, code="invalid_value", param="image") from None
    try:
        yield form
    finally:
        await form.close()


async def source_of(form: Form, size: tuple[int, int] | None) -> tuple[Upload, Mask | None]:
    """The image of a form, and where it is to change, at a size; None = its own, or everywhere.

    What stands over is cut off on both sides. Where there is no mask, the image's own transparent
    pixels are the hole.

    Raises:
        ApiError: a file is no image, or the mask does not fit.
    """
    source = await decode(form.image, role="image")
    mask = None if form.mask is None else await decode(form.mask, role="mask")
    return await asyncio.to_thread(_prepared, source, mask, size)


def _prepared(
    source: Upload, mask: Upload | None, size: tuple[int, int] | None
) -> tuple[Upload, Mask | None]:
    if mask is not None:
        check_sizes(mask, source)
    width, height = size or (source.width, source.height)
    source = fitted(source, width, height, "crop")
    if mask is None:
        return source, hole_from_alpha(source)
    hole = hole_from_alpha(fitted(mask, width, height, "crop"))
    if hole is None:
        message = "got a mask without transparent pixels; expected alpha 0 where to change"
        raise ApiError(400, message, code="invalid_mask", param="mask")
    return source, hole


def _add_text(texts: dict[str, Any], name: str, value: str) -> None:
    """A field; stages come as JSON, or as the names in brackets that OpenAI's client makes."""
    nested = _OF_STAGE.fullmatch(name)
    if nested is not None:
        stages = texts.setdefault("stages", {})
        if isinstance(stages, dict):
            stages.setdefault(nested[1], {})[nested[2]] = _value(value)
    else:
        texts[name] = _value(value) if name == "stages" else value


def _value(text: str) -> Any:
    """JSON, or else the text itself."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
