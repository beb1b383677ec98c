"""An image comes in, and the settings that it carries go out."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.datastructures import UploadFile
from starlette.requests import Request

from calotype.serving.front.context import hub_of
from calotype.serving.front.errors import ApiError
from calotype.serving.front.limits import FORM_LIMITS
from calotype.serving.front.recall import request_of_parameters, request_of_recipe
from calotype.serving.front.uploads import decode
from calotype.serving.native.about import models_of
from calotype.serving.native.shapes import ROOT, Json, request_fields

router = APIRouter(prefix=ROOT)
_IMAGE = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": _IMAGE},
            }
        },
        **{f"image/{kind}": {"schema": _IMAGE} for kind in ("png", "jpeg", "webp")},
    },
}


@router.post("/recipe", openapi_extra={"requestBody": _BODY})
async def recipe_of(request: Request) -> Json:
    """What an image says of how it was made, and the request that makes it again.

    `ignored` names settings that it has and a request has not.
    """
    upload = await decode(await _file(request), role="image")
    models = models_of(hub_of(request))
    names = [model["name"] for model in models]
    found = None
    if upload.recipe is not None:
        found = request_of_recipe(upload.recipe, models=names)
    elif upload.parameters is not None:
        base = models[0]["stages"][0] if models else {}
        own = {"own_weight": base.get("guidance_weight"), "own_steps": base.get("steps")}
        found = request_of_parameters(upload.parameters, **own, models=names)
    return Json(
        {
            "recipe": upload.recipe,
            "parameters": upload.parameters,
            "request": None if found is None or not found.fields else request_fields(found.fields),
            "ignored": [] if found is None else list(found.ignored),
            "width": upload.width,
            "height": upload.height,
        }
    )


async def _file(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        body: bytes = await request.body()
        return body
    async with request.form(**FORM_LIMITS) as form:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            message = "got a form without a file `image`; expected a PNG, JPEG or WebP file"
            raise ApiError(400, message, code="invalid_image", param="image")
        data: bytes = await image.read()
        return data
