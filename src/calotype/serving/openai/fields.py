"""What the requests may say: OpenAI's fields, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from calotype.serving.front.errors import ApiError, invalid
from calotype.serving.job import (
    LEAST_SIDE,
    MOST_PROMPT,
    MOST_SEED,
    MOST_SIDE,
    MOST_STEPS,
    ClassName,
)

MOST_IMAGES = 10
_DIGITS = 19  # of the largest seed
_SIZE = r"^(auto|[0-9]{1,5}x[0-9]{1,5})$"


def _number(value: object) -> object:
    """Seeds may be text: JavaScript and others round numbers beyond 2^53."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        return int(value)
    return value


Prompt = Annotated[str, Field(max_length=MOST_PROMPT)]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED), BeforeValidator(_number)]
Strength = Annotated[float, Field(gt=0, le=1)]


class Fields(BaseModel):
    """What all requests may say; None = not said."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"user", "safety_identifier"})
    """Fields of OpenAI's that are taken and change nothing."""

    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES)] | None = None
    size: Annotated[str, Field(pattern=_SIZE)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    user: Any = None
    safety_identifier: Any = None
    seed: Seed | None = None
    negative_prompt: Prompt | None = None
    class_name: ClassName | None = Field(default=None, alias="class")
    num_inference_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=1000)] | None = None
    strength: Strength | None = None
    stages: dict[str, dict[str, Any]] | None = None

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height; None = as the model or the source has it.

        Raises:
            ApiError: they are too small or too large.
        """
        if self.size is None or self.size == "auto":
            return None
        width, height = map(int, self.size.split("x"))
        if not all(LEAST_SIDE <= side <= MOST_SIDE for side in (width, height)):
            raise ApiError(
                400,
                f"got size {self.size}; expected auto or WxH, each {LEAST_SIDE} to {MOST_SIDE}",
                code="invalid_value",
                param="size",
            )
        return width, height


class Generation(Fields):
    """An image of a caption."""

    WITHOUT_EFFECT = Fields.WITHOUT_EFFECT | {
        "style",
        "moderation",
        "complexity",
        "frame_count",
        "frame_duration_ms",
        "svg",
        "prompt_rewriter",
    }

    prompt: Prompt
    quality: Quality | None = None
    background: Literal["auto", "opaque"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    style: Any = None
    moderation: Any = None
    complexity: Any = None
    frame_count: Any = None
    frame_duration_ms: Any = None
    svg: Any = None
    prompt_rewriter: Any = None


class Edit(Generation):
    """An image changed: within a hole, or begun again."""

    WITHOUT_EFFECT = Generation.WITHOUT_EFFECT | {"markup"}

    input_fidelity: Literal["high", "low"] | None = None
    markup: Any = None


class Variation(Fields):
    """An image in other strokes."""

    prompt: Prompt = ""


F = TypeVar("F", bound=Fields)


def read(kind: type[F], found: Mapping[str, Any], *, texts: bool = False) -> F:
    """The fields of a request, checked.

    Args:
        kind: of request.
        found: what came.
        texts: numbers and the like came as text, as forms have them.

    Raises:
        ApiError: a field is unknown, missing or wrong.
    """
    if found.get("background") == "transparent":
        raise ApiError(
            400,
            "got background 'transparent'; expected auto or opaque: images here are opaque",
            code="invalid_value",
            param="background",
        )
    try:
        return kind.model_validate(found, strict=not texts)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        wrong = invalid(first["loc"], first["msg"])
        if first["type"] != "extra_forbidden":
            raise wrong from None
        message = f"got an unknown field {wrong.param!r:.80}; leave it out"
        raise ApiError(400, message, code="unknown_parameter", param=wrong.param) from None
