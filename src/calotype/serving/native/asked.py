"""What the body of a request for a job asks for: as JSON, or as a form with files."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from calotype.serving.front.bodies import check_json
from calotype.serving.front.errors import ApiError, invalid
from calotype.serving.front.jobs import Mask
from calotype.serving.front.limits import FORM_LIMITS
from calotype.serving.front.uploads import Upload, bytes_of, decode, hole_from_mask
from calotype.serving.job import JobRequest

LEAST_PREVIEW, MOST_PREVIEW = 16, 1024
_PREVIEW = 256  # pixels, where nothing is said
_SCHEMA = JobRequest.model_json_schema()
_SEED = {"anyOf": [*_SCHEMA["properties"]["seed"]["anyOf"], {"type": "string"}]}
_SIDE = {"type": "integer", "minimum": LEAST_PREVIEW, "maximum": MOST_PREVIEW}
_PROPERTIES = {**_SCHEMA["properties"], "seed": _SEED, "preview_side": _SIDE}
_FILE = {"type": "string", "contentMediaType": "image/*", "format": "binary"}
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                **_SCHEMA,
                "properties": {
                    **_PROPERTIES,
                    "source": {"type": "string", "contentEncoding": "base64"},
                    "mask": {"type": "string", "contentEncoding": "base64"},
                },
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["request"],
                "properties": {"request": {"type": "string"}, "source": _FILE, "mask": _FILE},
            }
        },
    },
}
"""The body in OpenAPI's words."""


@dataclass(frozen=True)
class Asked:
    """A checked request with what it edits, and the longer side of its previews."""

    request: JobRequest
    preview_side: int
    source: Upload | None
    mask: Mask | None


@dataclass(frozen=True)
class _Parts:
    fields: dict[str, Any]
    source: bytes | None
    mask: bytes | None


async def asked_of(request: Request) -> Asked:
    """Read and check a body.

    Raises:
        ApiError: 400, with the field that is wrong.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        parts = await _form(request)
    else:
        parts = await asyncio.to_thread(_json, await request.body())
    side = _preview_side(parts.fields.pop("preview_side", None))
    wanted = _wanted(parts.fields)
    _check_parts(wanted, parts)
    source = None if parts.source is None else await decode(parts.source, role="source")
    mask = None
    if parts.mask is not None and source is not None:
        shape = await decode(parts.mask, role="mask")
        invert = wanted.invert_mask
        mask = await asyncio.to_thread(hole_from_mask, shape, source, invert=invert)
    return Asked(wanted, side, source, mask)


async def _form(request: Request) -> _Parts:
    async with request.form(**FORM_LIMITS) as form:
        text = form.get("request")
        if not isinstance(text, str):
            raise _refused("got a form without `request`; expected a JSON object in it", "request")
        files: dict[str, bytes] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) and name not in files:
                files[name] = await value.read()
            elif name != "request":
                raise _refused(f"got {name!r:.60} twice or as a text; expected one file", name[:60])
    for name in files.keys() - {"source", "mask"}:
        raise _refused(f"got a file {name!r:.60}; expected `source` and `mask`", name[:60])
    return _Parts(_object(text), files.get("source"), files.get("mask"))


def _json(body: bytes) -> _Parts:
    fields = _object(body)
    files = []
    for role in ("source", "mask"):
        text = fields.pop(role, None)
        if text is not None and not isinstance(text, str):
            raise _refused(f"got {role} that is no text; expected base64 or a data URL", role)
        files.append(None if text is None else bytes_of(text, role=role))
    return _Parts(fields, *files)


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        if isinstance(text, str):  # a field of a form; bodies of JSON were looked at by the guard
            check_json(text.encode())
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "the request is no JSON object", code="invalid_json", param="request")
    return found


def _preview_side(side: Any) -> int:
    if side is None:
        return _PREVIEW
    if type(side) is not int or not LEAST_PREVIEW <= side <= MOST_PREVIEW:
        expected = f"expected a whole number from {LEAST_PREVIEW} to {MOST_PREVIEW}"
        raise _refused(f"got preview_side {side!r:.60}; {expected}", "preview_side")
    return side


def _wanted(fields: dict[str, Any]) -> JobRequest:
    """The request; large seeds come as text, as JavaScript and answers of this API write them."""
    seed = fields.pop("seed_text", None)
    seed = fields.get("seed") if seed is None else seed
    if isinstance(seed, str) and seed.isascii() and seed.isdigit() and len(seed) <= 19:
        seed = int(seed)
    try:
        return JobRequest.model_validate({**fields, "seed": seed})
    except ValidationError as error:
        first = error.errors()[0]
        raise invalid(first["loc"], first["msg"]) from error


def _check_parts(wanted: JobRequest, parts: _Parts) -> None:
    if wanted.needs_source != (parts.source is not None):
        got = "no source" if parts.source is None else "a source"
        expected = "an image as `source`" if wanted.needs_source else "none"
        raise _refused(f"got {got} for {wanted.kind!r}; expected {expected}", "source")
    if (wanted.kind == "inpaint") != (parts.mask is not None):
        got = "no mask" if parts.mask is None else "a mask"
        expected = "`mask` beside `source` for 'inpaint', and for nothing else"
        raise _refused(f"got {got} for {wanted.kind!r}; expected {expected}", "mask")


def _refused(message: str, param: str) -> ApiError:
    return ApiError(400, message, code="invalid_value", param=param)
