"""The application behind its guard: what a server runs."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from calotype.serving.front.access import access_of
from calotype.serving.front.app import answer
from calotype.serving.front.authentication import Authentication
from calotype.serving.front.guard import Guard
from calotype.serving.front.keys import Keys, Sessions
from calotype.serving.front.observer import Observer
from calotype.serving.front.observing import Observing
from calotype.serving.front.settings import ServeSettings
from calotype.web.asgi import App


def guarded(
    app: FastAPI, settings: ServeSettings, observer: Observer, *, folder: Path | None
) -> App:
    """The guard before an application that `build_app` made; what it refuses is observed, too.

    Args:
        app: behind it; its own errors get the guard's headers.
        settings: the server's names, with the port that is listened at, and whom it lets in.
        observer: of the application.
        folder: where keys and sessions are kept; None = there are none.

    Raises:
        UsageError: an option is no name.
        CalotypeError: the file of keys cannot be read.
    """
    keys = Keys(folder)
    access = access_of(settings)
    authentication = Authentication(access, keys, Sessions(folder, keys))
    return Observing(Guard(app, access, authentication, answer, app.state.links.is_link), observer)
