"""The routes of /v1."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from calotype.serving.front.context import hub_of, owner_of, request_id_of
from calotype.serving.front.errors import FAILURES, ApiError
from calotype.serving.front.jobs import Mask, Submission
from calotype.serving.front.uploads import Upload
from calotype.serving.openai.answering import streamed, whole
from calotype.serving.openai.fields import Edit, Fields, Generation, Variation, read
from calotype.serving.openai.forms import read_form, source_of
from calotype.serving.openai.meaning import Meaning, find_model, is_others, meaning, renamed
from calotype.serving.openai.schema import IMAGES, form_body, json_body
from calotype.serving.openai.shapes import Shape

router = APIRouter(prefix="/v1", responses=FAILURES)
_START_SECONDS = 2.0


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The models that are served, the default first."""
    return {"object": "list", "data": [_model(one["name"]) for one in _models(request)]}


@router.get("/models/{model_id}")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    """A model; OpenAI's names, which clients have built in, are answered, too."""
    found = find_model(model_id, _models(request))
    return _model(model_id if is_others(model_id) else found["name"])


@router.post("/images/generations", responses=IMAGES, openapi_extra=json_body(Generation))
async def generations(request: Request) -> Response:
    """Images of a caption."""
    fields = read(Generation, _object(await request.body()))
    return await _answer(request, fields, meaning(fields, _models(request)))


@router.post("/images/edits", responses=IMAGES, openapi_extra=form_body(Edit))
async def edits(request: Request) -> Response:
    """An image changed: within its hole, or begun again."""
    return await _edited(request, Edit)


@router.post("/images/variations", responses=IMAGES, openapi_extra=form_body(Variation))
async def variations(request: Request) -> Response:
    """An image in other strokes."""
    return await _edited(request, Variation)


async def _edited(request: Request, kind: type[Fields]) -> Response:
    form = await read_form(request)
    fields = read(kind, form.texts, texts=True)
    served = _models(request)
    find_model(fields.model, served)  # before the work on its files
    source, mask = await source_of(form, fields.sides)
    if kind is Variation:
        mask = None  # all is made anew, whatever is transparent
    meant = meaning(fields, served, masked=mask is not None)
    return await _answer(request, fields, meant, source=source, mask=mask)


async def _answer(
    request: Request,
    fields: Fields,
    meant: Meaning,
    *,
    source: Upload | None = None,
    mask: Mask | None = None,
) -> Response:
    """Make a job of a request and answer it."""
    is_streamed = isinstance(fields, Generation) and bool(fields.stream)
    partial = (fields.partial_images or 0) if isinstance(fields, Generation) else 0
    headers = {"x-ignored-params": ",".join(meant.ignored)} if meant.ignored else {}
    submission = Submission(
        request=meant.request,
        owner=owner_of(request),
        api="openai",
        request_id=request_id_of(request),
        source=source,
        mask=mask,
        previews="partial" if partial and is_streamed else "none",
        preview_size=meant.request.size,
        preview_format=meant.request.format,
        idempotency_key=request.headers.get("idempotency-key") or None,
        is_retry=request.headers.get("x-stainless-retry-count", "0") != "0",
    )
    try:
        job = await hub_of(request).submit(submission)
    except ApiError as error:
        raise renamed(error) from None
    shape = Shape(
        meant,
        "image_generation" if source is None else "image_edit",
        as_links=fields.response_format == "url",
    )
    if is_streamed:
        return streamed(request, job, shape, partial=partial, headers=headers)
    return await whole(request, job, shape, headers)


def _models(request: Request) -> list[dict[str, Any]]:
    """What an engine said of its models when it started.

    Raises:
        ApiError: 503, none has started yet.
    """
    for engine in hub_of(request).work.engines:
        if engine.about:
            return list(engine.about["models"])
    message = "the server is starting; ask again in a moment"
    raise ApiError(503, message, code="starting", retry_after=_START_SECONDS)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "calotype"}


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "got a body that is no JSON object", code="invalid_json")
    return found
