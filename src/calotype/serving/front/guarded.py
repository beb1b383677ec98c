"""The application behind its guard: what a server runs."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from calotype.serving.front.access import access_of, check_exposure
from calotype.serving.front.app import answer
from calotype.serving.front.authentication import Authentication
from calotype.serving.front.guard import Guard
from calotype.serving.front.keys import Keys, Sessions
from calotype.serving.front.settings import ServeSettings


def guarded(app: FastAPI, settings: ServeSettings, *, port: int, folder: Path) -> Guard:
    """The guard before an application that `build_app` made.

    Args:
        app: behind it; its own errors get the guard's headers, too.
        settings: the server's names, and whom it lets in.
        port: that is listened at.
        folder: where keys and sessions are kept.

    Raises:
        UsageError: others could reach it without a key, or an option is no name.
        CalotypeError: the file of keys cannot be read.
    """
    keys = Keys(folder)
    check_exposure(settings, has_keys=keys.needed)
    access = access_of(settings, port)
    authentication = Authentication(access, keys, Sessions(folder, keys))
    return Guard(app, access, authentication, answer, app.state.links.is_link)
