"""What a client may be told: a status, a sentence, and whether asking again may help.

Each API renders it in its own shape; the shape here is OpenAI's, which is ours, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP, from 400.
        message: one sentence; names no path of this machine.
        code: for programs, such as "queue_full".
        param: the field that is wrong; None = no single one.
        retry_after: seconds after which asking again may help; None = not said.
        retry: whether asking again unchanged may help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        retry: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.retry = retry or retry_after is not None

    @property
    def kind(self) -> str:
        """The type of the error, as OpenAI names them."""
        other = "invalid_request_error" if self.status < 500 else "server_error"
        return _TYPES.get(self.status, other)

    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        found = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": found}

    def headers(self) -> dict[str, str]:
        """What clients that ask again by themselves look at."""
        found = {"x-should-retry": "true" if self.retry else "false"}
        if self.retry_after is not None:
            found["retry-after"] = str(math.ceil(self.retry_after))
        return found


def not_found(what: str) -> ApiError:
    """There is none, or it is another's: nobody learns which."""
    return ApiError(404, f"there is no such {what}", code="not_found")


def engine_gone(message: str) -> ApiError:
    """What was asked could not be computed, through no fault of the request."""
    return ApiError(500, message, code="engine_failed", retry=True)


def invalid(where: Sequence[int | str], message: str) -> ApiError:
    """What pydantic says of a request, in a sentence; `where` begins with body, query or path."""
    names = [str(name) for name in where if name not in ("body", "query", "path")]
    param = ".".join(names) or None
    text = message.removeprefix("Value error, ")
    return ApiError(
        400, text if param is None else f"{param}: {text}", code="invalid_value", param=param
    )


def job_failed(kind: str, message: str) -> ApiError:
    """What became of a job that was taken on: by the kind that its last event says."""
    if kind == "usage":
        return ApiError(400, message, code="invalid_value")
    if kind == "shutdown":
        return ApiError(503, message, code="draining", retry_after=10)
    return ApiError(500, message, code="out_of_memory" if kind == "memory" else "engine_failed")


def job_cancelled() -> ApiError:
    """Somebody else ended the job that was waited for."""
    return ApiError(409, "the job was cancelled", code="cancelled")


_TEXT, _OR_NONE = {"type": "string"}, {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {"message": _TEXT, "type": _TEXT, "param": _OR_NONE, "code": _OR_NONE},
}
_FAILED = {
    "description": "An error",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": _ERROR},
            }
        }
    },
}
FAILURES: dict[int | str, dict[str, Any]] = {"4XX": _FAILED, "5XX": _FAILED}
"""What routes say of their errors to programs that read OpenAPI, where the shape is OpenAI's."""
