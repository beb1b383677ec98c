"""Serving a study until Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calotype.errors import MissingExtra, UsageError
from calotype.evaluation.rating.raters import invite, new_token
from calotype.evaluation.rating.store import Store
from calotype.evaluation.rating.study import read_study, verify_images
from calotype.web.addresses import WILDCARDS, is_loopback, listen, origin_of, own_origins


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How a study is served.

    Args:
        host: address to listen at.
        port: 0 = any that is free.
        public_url: that raters open, where it is not the address listened at.
        needs_tokens: raters need links even on the loopback.
        invite: raters to make links for, before.
        is_common: print one link that anybody may take part by.
        completion_code: of all raters; None = each has their own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    needs_tokens: bool = False
    invite: int = 0
    is_common: bool = False
    completion_code: str | None = None


def serve(folder: Path, options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve the study in `folder` until the process is told to end.

    Args:
        folder: of the study.
        options: see `ServeOptions`.
        say: is told the links.

    Raises:
        UsageError: there is no study, or the options do not fit.
        CalotypeError: the study was changed, or the port is taken.
    """
    study = read_study(folder)
    verify_images(study, folder)
    local = is_loopback(options.host)
    public = None if options.public_url is None else _public(options.public_url)
    if public is None and options.host in WILDCARDS:
        raise UsageError(
            f"got --host {options.host} alone; expected --public-url, the address raters open, "
            "for requests by other names are refused"
        )
    try:
        import python_multipart  # noqa: F401  # starlette reads forms with it
        import uvicorn

        from calotype.evaluation.rating.server.app import build_app
        from calotype.evaluation.rating.server.context import Access, Context
    except ImportError as error:
        raise MissingExtra("rate", error.name or "starlette") from error
    listening = listen(options.host, options.port)
    with listening:
        port = listening.getsockname()[1]
        access = Access(
            origins=own_origins(options.host, port, public, local=local),
            is_open=local and public is None and not options.needs_tokens,
            completion_code=options.completion_code,
        )
        store = Store(folder, study)
        _say_links(store, access.origins[0], options, say, is_open=access.is_open)
        app = build_app(Context(store, folder, access))
        # The access log would keep addresses and links.
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", server_header=False, proxy_headers=False
        )
        uvicorn.Server(config).run(sockets=[listening])


def _say_links(
    store: Store, origin: str, options: ServeOptions, say: Callable[[str], None], *, is_open: bool
) -> None:
    if is_open:
        say(f"raters: {origin}/")
    if options.is_common:
        say(f"raters, one link for all: {origin}/join/{new_token(store, 'join')}")
    if options.invite:
        for link in invite(store, options.invite):
            say(f"rater {link.rater}: {origin}/r/{link.token}")
    say(f"administrator: {origin}/admin/enter/{new_token(store, 'admin')}")


def _public(url: str) -> str:
    return origin_of(url, option="--public-url", example="https://rate.example.org")
