"""Whose a request is: one check, however a key is written, and the page's cookie."""

from __future__ import annotations

import asyncio
import base64
import binascii

from starlette.requests import Request

from calotype.serving.front.access import Access
from calotype.serving.front.errors import ApiError
from calotype.serving.front.keys import Keys, Sessions
from calotype.serving.front.limits import MOST_WRONG_KEYS, WRONG_KEY_SECONDS
from calotype.web.asgi import Scope, header


class Authentication:
    """Tells holders of keys from others.

    Args:
        access: the server's own origins, whose pages' cookies count.
        keys: that are known.
        sessions: that cookies name.
    """

    def __init__(self, access: Access, keys: Keys, sessions: Sessions) -> None:
        self.sessions = sessions
        self._access = access
        self._keys = keys
        self._waiting = 0

    @property
    def needed(self) -> bool:
        """Whether there are keys at all."""
        return self._keys.needed

    async def identify(self, scope: Scope) -> str:
        """The name of the key that a request came with.

        Raises:
            ApiError: it came with none, or a wrong one; the answer to that takes a second.
        """
        offered = _offered(scope)
        names = [self._keys.name_of(key) for key in offered]
        # A cookie of ours counts for our own pages: other ports of this host are the same "site".
        if header(scope, "origin") is None or self._is_own(scope):
            names.append(self.sessions.name_of(self.cookie_of(scope)))
        for name in names:
            if name is not None:
                return name
        if offered:
            await self._delay()
            raise ApiError(401, "got a key that is not known", code="invalid_api_key")
        raise ApiError(
            401, "a key is needed: send it as Authorization: Bearer KEY", code="invalid_api_key"
        )

    async def check(self, key: str) -> str:
        """The name of a key; raises as `identify`."""
        name = self._keys.name_of(key)
        if name is None:
            await self._delay()
            raise ApiError(401, "That key is not known.", code="invalid_api_key")
        return name

    def cookie_of(self, scope: Scope) -> str:
        """What the page's cookie holds; empty where there is none."""
        return str(Request(scope).cookies.get(self._access.cookie, ""))

    def _is_own(self, scope: Scope) -> bool:
        return (header(scope, "origin") or "").lower() in self._access.origins

    async def _delay(self) -> None:
        """Wrong keys wait, and only so many: right ones never do."""
        if self._waiting >= MOST_WRONG_KEYS:
            text = "too many wrong keys came in; try again in a moment"
            raise ApiError(429, text, code="too_many_wrong_keys", retry_after=5)
        self._waiting += 1
        try:
            await asyncio.sleep(WRONG_KEY_SECONDS)
        finally:
            self._waiting -= 1


def _offered(scope: Scope) -> list[str]:
    found = [header(scope, name) or "" for name in ("api-key", "x-api-key")]
    scheme, _, value = (header(scope, "authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(value.strip())
    elif scheme.lower() == "basic":
        found.append(_password(value.strip()))
    return [key for key in found if key]


def _password(value: str) -> str:
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return value  # wrong, whatever it is
    return text.partition(":")[2]
