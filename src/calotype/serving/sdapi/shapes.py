"""Shapes of answers: errors as they say them, and what routes say of themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, JsonValue

from calotype.serving.front.errors import ApiError


class ErrorShape(BaseModel):
    """An error as they say it: `error` for programs, `detail` for people."""

    error: str
    detail: JsonValue
    body: JsonValue
    errors: str


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorShape},
    "5XX": {"model": ErrorShape},
}


def shape(error: ApiError) -> dict[str, Any]:
    """An error as they say it."""
    return {"error": error.code, "detail": error.message, "body": "", "errors": error.message}
