"""The page's way in: a form for a key, or JSON, and the cookie that stands for it afterwards.

The guard answers these addresses, before all others; the form needs no file of the page.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json

from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from calotype.serving.front.access import Access
from calotype.serving.front.authentication import Authentication
from calotype.serving.front.bodies import Bodies, check_body, check_type
from calotype.serving.front.errors import ApiError
from calotype.serving.front.limits import MOST_LOGIN, SESSION_SECONDS
from calotype.web.asgi import Message, Receive, Scope, replayed

LOGIN, LOGOUT = "/login", "/logout"
API_LOGIN = "/api/v1/login"
"""For a page that is open already: `{"key": KEY}`."""
PATHS = (LOGIN, LOGOUT, API_LOGIN)

_STYLE = (
    ":root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}"
    "body{max-width:24rem;margin:15vh auto;padding:0 1rem}"
    "label,input,button{display:block;width:100%;box-sizing:border-box;font:inherit}"
    "input,button{min-height:2.75rem;margin:.25rem 0 1rem;padding:.25rem .75rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>calotype: log in</title>
<style>{style}</style>
<main>
<h1>calotype</h1>
{message}<form method="post" action="/login" enctype="multipart/form-data">
<label for="key">Key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>
</form>
<p>Whoever runs this server makes keys with <code>calotype serve --new-key NAME</code>.</p>
</main>
</html>
"""


class Login:
    """Answers those addresses.

    Args:
        access: the server's origins, for its cookie.
        authentication: which knows keys and keeps sessions.
        bodies: reads the form.
    """

    def __init__(self, access: Access, authentication: Authentication, bodies: Bodies) -> None:
        self._access = access
        self._authentication = authentication
        self._bodies = bodies

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """A request to one of them.

        Raises:
            ApiError: the method or the body is wrong.
        """
        if scope["path"] == LOGIN and scope["method"] in ("GET", "HEAD"):
            return self.page() if self._authentication.needed else _see_other("/")
        if scope["method"] != "POST":
            raise ApiError(405, "got a method that this address has not", code="invalid_request")
        if scope["path"] == LOGOUT:
            session = self._authentication.cookie_of(scope)
            await asyncio.to_thread(self._authentication.sessions.end, session)
            response = _see_other(LOGIN)
            # The page keeps sources of edits there.
            response.headers["clear-site-data"] = '"storage"'
            return self._with_cookie(response, "", seconds=0)
        check_type(scope)
        body = await self._bodies.read(scope, receive, most=MOST_LOGIN)
        check_body(scope, body)
        if scope["path"] == API_LOGIN:
            return await self._enter(_key_in_json(body), JSONResponse({}))
        key = await _key_in_form(scope, body)
        try:
            return await self._enter(key, _see_other("/"))
        except ApiError as error:
            return self.page(status=error.status, message=error.message)

    def page(self, *, status: int = 200, message: str = "") -> Response:
        """The form."""
        shown = f'<p role="alert">{html.escape(message)}</p>\n' if message else ""
        text = _PAGE.format(style=_STYLE, message=shown)
        headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
        return HTMLResponse(text, status, headers)

    async def _enter(self, key: str, response: Response) -> Response:
        name = await self._authentication.check(key)
        session = await asyncio.to_thread(self._authentication.sessions.begin, name)
        return self._with_cookie(response, session, seconds=SESSION_SECONDS)

    def _with_cookie(self, response: Response, value: str, *, seconds: int) -> Response:
        response.set_cookie(
            self._access.cookie,
            value,
            max_age=seconds,
            path="/",
            secure=self._access.is_secure,
            httponly=True,
            samesite="strict",
        )
        return response


def _see_other(path: str) -> Response:
    return RedirectResponse(path, 303, {"cache-control": "no-store"})


async def _key_in_form(scope: Scope, body: bytes) -> str:
    request = Request(scope, replayed(body, _nothing))
    try:
        async with request.form(max_files=0, max_fields=4) as form:
            return str(form.get("key", ""))
    except MultiPartException as error:
        raise ApiError(400, error.message, code="invalid_form") from None


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _key_in_json(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        raise ApiError(400, 'expected JSON: {"key": KEY}', code="invalid_json", param="key")
    return str(found["key"])
