"""The routes of /sdapi/v1 that make images."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.sdapi.answering import NOBODY, as_json, made, submitted, texts_of
from calotype.serving.sdapi.desk import desk_of, served
from calotype.serving.sdapi.fields import Call, ImageToImage, TextToImage
from calotype.serving.sdapi.ignored import header_of
from calotype.serving.sdapi.images import Edited, edited
from calotype.serving.sdapi.infos import info_text
from calotype.serving.sdapi.meaning import Meaning, kind_of_edit, meaning, size_of
from calotype.serving.sdapi.shapes import ERRORS

router = APIRouter(prefix="/sdapi/v1", responses=ERRORS)


@router.post("/txt2img", response_model=None)
async def txt2img(request: Request, call: TextToImage) -> Response:
    """Images of a prompt."""
    here = served(request)
    return await _answer(request, call, meaning(call, here, {"size": size_of(call, here)}))


@router.post("/img2img", response_model=None)
async def img2img(request: Request, call: ImageToImage) -> Response:
    """Images made of another, or within its mask."""
    here = served(request)
    given = await edited(call)
    meant = meaning(call, here, kind_of_edit(call, padding=given.padding))
    return await _answer(request, call, meant, given)


async def _answer(
    request: Request, call: Call, meant: Meaning, given: Edited | None = None
) -> Response:
    source, hole = (None, None) if given is None else (given.source, given.hole)
    job = await submitted(request, meant.request, source, hole)
    if call.override_settings_restore_afterwards is False:
        desk_of(request).choose(owner_of(request), meant.model)
    try:
        with desk_of(request).named(job, call.force_task_id):
            images = await made(request, job)
        if images is None:
            return NOBODY
        texts = await texts_of(request, job, images) if call.send_images is not False else []
        found = {
            "images": texts,
            "parameters": _parameters(call),
            "info": info_text(call, meant, job, images),
        }
        return await as_json(found, header_of(meant.ignored))
    finally:
        hub_of(request).release(job)


def _parameters(call: Call) -> dict[str, Any]:
    """What was asked; images come back where that is asked, too."""
    left_out = {"mask", "init_images"}
    if isinstance(call, ImageToImage) and call.include_init_images:
        left_out = set()
    asked = json.loads(call.model_dump_json(exclude=left_out))  # numbers that are none become null
    return {**asked, **dict.fromkeys(left_out)}
