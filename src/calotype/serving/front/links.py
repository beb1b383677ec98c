"""Links to images that open without a key, for an hour: what OpenAI's `response_format: url` gives.

Whoever has one may see that one image. The token has 128 random bits and is kept as its hash.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from calotype.serving.front.context import hub_of
from calotype.serving.front.errors import not_found
from calotype.serving.front.jobs import Job, JobImage, Owner
from calotype.serving.front.limits import LINK_SECONDS, MOST_LINKED, MOST_LINKS
from calotype.web.tokens import new_token, token_hash

_START = "/links/"

router = APIRouter()


@dataclass(frozen=True)
class _Link:
    image_id: str
    owner: Owner
    format: str
    until: float
    data: bytes | None = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        return 0 if self.data is None else len(self.data)


class Links:
    """The links of the last hour; beyond what fits the oldest end early."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}  # by the token's hash, oldest first
        self._held = 0

    def add(self, job: Job, image: JobImage) -> str:
        """The path of a new link to a finished image, to be put behind the server's address.

        The file of an image that is not kept on the disk is held here.
        """
        token = new_token()
        held = None if image.kept else image.data
        until = time.monotonic() + LINK_SECONDS
        link = _Link(image.id, job.owner, image.format, until, held)
        self._links[token_hash(token)] = link
        self._held += link.size
        self._forget()
        return f"{_START}{token}.{image.format}"

    def find(self, path: str) -> _Link | None:
        """The link of a path, None where there is none, or no more."""
        self._forget()
        token, _, ending = path.removeprefix(_START).partition(".")
        link = self._links.get(token_hash(token)) if path.startswith(_START) else None
        return link if link is not None and link.format == ending else None

    def is_link(self, path: str) -> bool:
        """Whether a path needs no key."""
        return self.find(path) is not None

    def _forget(self) -> None:
        now = time.monotonic()
        while self._links:
            digest, oldest = next(iter(self._links.items()))
            fits = len(self._links) <= MOST_LINKS and self._held <= MOST_LINKED
            if oldest.until > now and fits:
                return
            del self._links[digest]
            self._held -= oldest.size


def links_of(request: Request) -> Links:
    """The server's links."""
    return cast(Links, request.app.state.links)


@router.get(_START + "{name}")
async def open_link(request: Request, name: str) -> Response:
    """The image behind a link."""
    link = links_of(request).find(_START + name)
    if link is None:
        raise not_found("link")
    data = link.data
    if data is None:
        data = (await hub_of(request).file(link.image_id, link.owner)).data
    headers = {
        "content-disposition": f'inline; filename="image.{link.format}"',
        "content-security-policy": "default-src 'none'; sandbox",
        # Other people's pages may show it: they were given its address.
        "cross-origin-resource-policy": "cross-origin",
        "cache-control": "private, max-age=600",
    }
    return Response(data, 200, headers, f"image/{link.format}")
