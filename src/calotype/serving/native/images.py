"""Images that were made: listed, looked at, kept as favourites, deleted and brought back."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.front.errors import not_found
from calotype.serving.front.hub import File
from calotype.serving.front.jobs import Job, JobImage
from calotype.serving.front.recall import request_of_recipe
from calotype.serving.front.rows import KeptImage
from calotype.serving.front.store import MOST_LISTED, Store
from calotype.serving.native.about import models_of
from calotype.serving.native.shapes import ROOT, Json, image_fields, request_fields
from calotype.serving.native.small import Thumbnails

router = APIRouter(prefix=f"{ROOT}/images")
_MOST_ZIPPED = 1000
_SLUG = re.compile(r"[^a-z0-9]+")
_CACHED = {
    "cache-control": "private, max-age=86400",  # what an id names never changes
    "content-security-policy": "default-src 'none'; sandbox",
}


class _Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    favourite: StrictBool


class _Ids(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ids: Annotated[
        list[Annotated[str, Field(max_length=100)]],
        Field(min_length=1, max_length=_MOST_ZIPPED),
    ]


def _files(*types: str) -> dict[int | str, dict[str, Any]]:
    """An answer that is a file, in OpenAPI's words."""
    file = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"description": "A file", "content": dict.fromkeys(types, file)}}


async def _kept(request: Request, image_id: str) -> KeptImage:
    """An image on the disk that a path names."""
    store = _store(request)
    found = None if store is None else await store.find(image_id, owner_of(request).key_name)
    if found is None:
        raise not_found("image that is kept")
    return found


async def _image(request: Request, image_id: str) -> KeptImage:
    """An image that a path names, on the disk or in memory."""
    held = hub_of(request).image(image_id, owner_of(request))
    return await _kept(request, image_id) if held is None else _of_memory(*held)


Kept = Annotated[KeptImage, Depends(_kept)]
Found = Annotated[KeptImage, Depends(_image)]


@router.get("")
async def listing(
    request: Request,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
    search: Annotated[str, Query(max_length=1000)] = "",
    favourite: bool = False,
) -> Json:
    """Images that are kept, newest first: a page, and where the next begins."""
    store = _store(request)
    if store is None:
        return Json({"images": [], "next": None})
    found = await store.listing(
        owner_of(request).key_name, cursor=cursor, limit=limit, search=search, favourite=favourite
    )
    return Json({"images": [image_fields(one) for one in found.images], "next": found.next})


@router.post("/zip", response_class=Response, responses=_files("application/zip"))
async def zipped(request: Request, wanted: _Ids) -> StreamingResponse:
    """Files of several images in one archive, which is sent as it is made."""
    images = [await _image(request, one) for one in dict.fromkeys(wanted.ids)]
    headers = {"content-disposition": f'attachment; filename="calotype-{len(images)}-images.zip"'}
    return StreamingResponse(_archive(request, images), 200, headers, "application/zip")


@router.get("/{image_id}")
async def one_image(request: Request, image: Found) -> Json:
    """What an image is, and the request that makes it again."""
    names = [model["name"] for model in models_of(hub_of(request))]
    fields = request_of_recipe(image.recipe or {}, models=names).fields
    return Json({**image_fields(image), "request": request_fields(fields) if fields else None})


@router.patch("/{image_id}")
async def change(request: Request, image: Kept, wanted: _Change) -> dict[str, Any]:
    """Make an image a favourite, or none any more."""
    store = cast(Store, _store(request))
    await store.set_favourite(image, wanted.favourite)
    return {**image_fields(image), "favourite": wanted.favourite}


@router.delete("/{image_id}")
async def delete(request: Request, image: Kept) -> dict[str, Any]:
    """Hide an image; for a minute it can be brought back, then its file is removed."""
    await cast(Store, _store(request)).delete(image)
    return image_fields(image)


@router.post("/{image_id}/restore")
async def restore(request: Request, image_id: str) -> dict[str, Any]:
    """Bring back an image that was deleted less than a minute ago."""
    store = _store(request)
    if store is None or not await store.restore(image_id, owner_of(request).key_name):
        raise not_found("image that was deleted within the last minute")
    return image_fields(await _kept(request, image_id))


@router.get(
    "/{image_id}/file",
    response_class=Response,
    responses=_files("image/png", "image/jpeg", "image/webp"),
)
async def file(request: Request, image: Found, download: bool = False) -> Response:
    """An image's file as it was made."""
    data = (await _file(request, image)).data
    kind = "attachment" if download else "inline"
    headers = {**_CACHED, "content-disposition": f'{kind}; filename="{_name(image)}"'}
    return Response(data, 200, headers, f"image/{image.format}")


@router.get("/{image_id}/thumbnail", response_class=Response, responses=_files("image/webp"))
async def thumbnail(request: Request, image: Found) -> Response:
    """An image as WebP, 256 pixels long at most."""

    async def read() -> bytes:
        return (await _file(request, image)).data

    data = await cast(Thumbnails, request.app.state.thumbnails).get(image.id, read)
    return Response(data, 200, _CACHED, "image/webp")


@router.get("/{image_id}/recipe")
async def recipe(image: Found) -> Json:
    """How an image was made, as its file says it."""
    if image.recipe is None:
        raise not_found("recipe of this image")
    return Json(image.recipe)


def _store(request: Request) -> Store | None:
    return hub_of(request).store


async def _file(request: Request, image: KeptImage) -> File:
    return await hub_of(request).file(image.id, owner_of(request))


def _of_memory(job: Job, image: JobImage) -> KeptImage:
    asked = job.request
    return KeptImage(
        id=image.id,
        job=job.id,
        created=job.created if job.ended is None else job.ended,
        prompt=asked.prompt,
        seed=image.seed,
        model=job.plan.get("model", asked.model),
        kind=asked.kind,
        format=image.format,
        width=image.width,
        height=image.height,
        bytes=len(image.data or b""),
        recipe=image.recipe,
        favourite=False,
    )


def _name(image: KeptImage) -> str:
    """Of its file, for people: caption, seed and what makes it unique."""
    words = _SLUG.sub("-", image.prompt[:60].lower()).strip("-") or "image"
    return f"{words}-{image.seed}-{image.id[:6]}.{image.format}"


async def _archive(request: Request, images: list[KeptImage]) -> AsyncIterator[bytes]:
    out = _Pipe()
    with zipfile.ZipFile(out, "w") as archive:
        for image in images:
            archive.writestr(_name(image), (await _file(request, image)).data)
            yield out.taken()
    yield out.taken()


class _Pipe(io.RawIOBase):
    """What is written, until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """It is; nobody can seek in it, so that an archive is written from front to back."""
        return True

    def write(self, data: Any, /) -> int:
        """Keep a piece."""
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """All pieces since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
