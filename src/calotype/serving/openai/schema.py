"""What the routes say of themselves to programs that read OpenAPI; the tests let one loose on them.

The server publishes none: whoever has no key learns nothing.
"""

from __future__ import annotations

from typing import Any

from calotype.serving.openai.fields import Fields

_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}
_IMAGES = {
    "type": "object",
    "required": ["created", "data", "background", "output_format", "quality", "size", "usage"],
    "properties": {
        "data": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"b64_json": _TEXT, "url": _TEXT},
                "minProperties": 1,
                "additionalProperties": False,
            },
        }
    },
}
IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Images",
        "content": {
            "application/json": {"schema": _IMAGES},
            "text/event-stream": {"schema": _TEXT},
        },
    }
}
"""Of the routes that make images."""


def json_body(kind: type[Fields]) -> dict[str, Any]:
    """The body of a request as JSON."""
    return _body("application/json", kind.model_json_schema())


def form_body(kind: type[Fields]) -> dict[str, Any]:
    """The body of a request as a form with an image and, for edits, its mask."""
    schema = kind.model_json_schema()
    schema["properties"] |= {"image": _FILE, "mask": _FILE}
    schema["required"] = [*schema.get("required", []), "image"]
    return _body("multipart/form-data", schema)


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}
