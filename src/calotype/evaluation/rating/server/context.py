"""What all pages share: the study, who may come in, and how a page is rendered."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from calotype.evaluation.rating.raters import completion_code, is_token, rater_of
from calotype.evaluation.rating.store import Rater, Store
from calotype.evaluation.rating.study import Study

RATER, JOIN, ADMIN = "rater", "join", "admin"  # whose token a cookie holds
_COOKIE_SECONDS = 60 * 60 * 24 * 60
# What no page can show: C0 and C1 controls but tab and newline, and lone surrogates.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may come in.

    Args:
        origins: of the server, as browsers say them; the first is printed.
        is_open: anybody may take part, without a link: on the loopback alone.
        completion_code: the same for all raters; None = each has their own.
    """

    origins: tuple[str, ...]
    is_open: bool
    completion_code: str | None = None

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by https, so that cookies stay there."""
        return self.origins[0].startswith("https://")


@dataclass(frozen=True)
class Context:
    """A study being served."""

    store: Store
    folder: Path
    access: Access

    @property
    def study(self) -> Study:
        """The study."""
        return self.store.study

    @cached_property
    def _templates(self) -> Environment:
        environment = Environment(
            loader=PackageLoader("calotype.evaluation.rating.server", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["shown"] = lambda text: _HIDDEN.sub("�", str(text))
        return environment

    def page(self, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page; browsers keep no copy, so that going back shows what is the case."""
        text = self._templates.get_template(f"{name}.html.j2").render(
            study=self.study, access=self.access, **values
        )
        headers = {"cache-control": "no-store"}
        return HTMLResponse(text.encode("utf-8", "replace"), status, headers)

    def message(self, title: str, text: str, *, status: int) -> HTMLResponse:
        """A page that says one thing."""
        return self.page("message", status=status, title=title, text=text)

    def rater(self, request: Request) -> Rater | None:
        """Who asks."""
        token = self._token(request, RATER)
        return None if token is None else rater_of(self.store, token)

    def may_join(self, request: Request) -> bool:
        """Whether somebody unknown may take part."""
        token = self._token(request, JOIN)
        return self.access.is_open or (token is not None and is_token(self.store, "join", token))

    def is_admin(self, request: Request) -> bool:
        """Whether the administrator asks."""
        token = self._token(request, ADMIN)
        return token is not None and is_token(self.store, "admin", token)

    def code(self, rater: Rater) -> str:
        """What a rater hands in elsewhere once all is done."""
        return self.access.completion_code or completion_code(self.store, rater.id)

    def let_in(self, response: Response, role: str, token: str) -> None:
        """Give a browser a token that no script and no other site can use."""
        response.set_cookie(
            self._cookie(role),
            token,
            max_age=_COOKIE_SECONDS,
            path="/",
            secure=self.access.is_secure,
            httponly=True,
            samesite="lax",
        )

    def forget(self, response: Response) -> None:
        """Take a rater's token from their browser."""
        response.delete_cookie(self._cookie(RATER), path="/")

    def _token(self, request: Request, role: str) -> str | None:
        token = request.cookies.get(self._cookie(role))
        return None if token is None else str(token)

    def _cookie(self, role: str) -> str:
        """Studies at other ports of a host share its cookies, but not their names."""
        return f"calotype_{role}_{hashlib.sha256(self.store.key).hexdigest()[:8]}"


def see_other(path: str) -> RedirectResponse:
    """Send the browser to a page by GET, so that a reload repeats nothing."""
    return RedirectResponse(path, 303, {"cache-control": "no-store"})
