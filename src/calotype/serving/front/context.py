"""What a route asks of the application: the hub, and whom it answers."""

from __future__ import annotations

from typing import cast

from starlette.requests import Request

from calotype.serving.front.hub import Hub
from calotype.serving.front.jobs import Owner

KEY_NAME = "calotype.key_name"
"""In a request's scope: the name of the key it came with, put there by the guard."""
REQUEST_ID = "calotype.request_id"
"""In a request's scope: its id, as in its answer's x-request-id."""


def hub_of(request: Request) -> Hub:
    """The server's hub."""
    return cast(Hub, request.app.state.hub)


def owner_of(request: Request) -> Owner:
    """Whose request it is."""
    address = "" if request.client is None else request.client.host
    return Owner(request.scope.get(KEY_NAME), address)


def request_id_of(request: Request) -> str:
    """The request's id."""
    return str(request.scope.get(REQUEST_ID, ""))
