"""What every API asks for in the end: one job of n images, checked as far as no model is needed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

MOST_IMAGES = 32
"""Of a job, and of a client in the queue."""
MOST_PROMPT = 32_000  # characters
MOST_STEPS = 256
LEAST_SIDE, MOST_SIDE = 16, 2048
MOST_SEED = 2**63 - 1
MOST_RANDOM_SEED = 2**32 - 1
"""Of seeds nobody asked for: small enough for every program that reads JSON numbers as floats."""

Side = Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
ClassName = Annotated[str, Field(min_length=1, max_length=1000)]
Kind = Literal["sample", "image_to_image", "inpaint", "upscale", "vary"]
Format = Literal["png", "jpeg", "webp"]


class JobRequest(BaseModel):
    """n images of one caption: seeds s, s + 1, ...; None = the model's own.

    Attributes:
        kind: from the caption alone; from a source begun again (`strength`); inside the hole of a
            mask; a source enlarged; or a source enlarged again from its own small version (`vary`).
        model: a name the server was started with; None = the first of them.
        prompt: the caption; "" samples without one.
        negative_prompt: the negative caption.
        class_name: of what a model with classes is to show; `class` in JSON.
        n: images.
        seed: of the first; None = random, below 2^32.
        size: width and height; edits keep their source's size, `upscale` multiplies it.
        steps: of the base.
        sampler: of the base.
        guidance: weight of the base; 1 = off.
        variety: of the base, in [0, 1].
        stages: further settings by resolution, named as in `SamplingConfig`.
        strength: how much of a source is made anew, in (0, 1].
        vary: aug_level at which `kind` "vary" enlarges a source again, in [0, 1].
        invert_mask: the mask is black where the image is to change.
        mask_blur: pixels outside the hole into which what is made fades.
        crop: make a hole that is small against its image in a window round it.
        padding: of that window, as a fraction of the hole.
        format: of the files.
        compression: 0 to 100: quality of JPEG and WebP; without effect on PNG.
        exact: compute alone, bit for bit as `calotype sample` does, not batched with others.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True
    )

    kind: Kind = "sample"
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    prompt: Annotated[str, Field(max_length=MOST_PROMPT)] = ""
    negative_prompt: Annotated[str, Field(max_length=MOST_PROMPT)] | None = None
    class_name: ClassName | None = Field(default=None, alias="class")
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] | None = None
    size: Annotated[tuple[Side, Side], Field(strict=False)] | None = None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    sampler: Annotated[str, Field(max_length=40)] | None = None
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = None
    variety: Annotated[float, Field(ge=0, le=1)] | None = None
    stages: dict[
        Annotated[int, Field(strict=False, ge=1, le=2**20)],
        Annotated[
            dict[Annotated[str, Field(max_length=40)], JsonValue],
            Field(min_length=1, max_length=40),
        ],
    ] = Field(default_factory=dict, max_length=16)
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    vary: Annotated[float, Field(ge=0, le=1)] | None = None
    invert_mask: bool = False
    mask_blur: Annotated[int, Field(ge=0, le=4096)] = 0
    crop: bool = True
    padding: Annotated[float, Field(ge=0, le=100)] = 0.5
    format: Format = "png"
    compression: Annotated[int, Field(ge=0, le=100)] = 90
    exact: bool = False

    @field_validator("stages")
    @classmethod
    def _steps_are_bounded(
        cls, stages: dict[int, dict[str, JsonValue]]
    ) -> dict[int, dict[str, JsonValue]]:
        for resolution, settings in stages.items():
            if _steps(settings) > MOST_STEPS:
                got = f"got more than {MOST_STEPS} steps for stage {resolution}"
                raise ValueError(f"{got}; expected {MOST_STEPS} at most")
        return stages

    @model_validator(mode="after")
    def _fits_together(self) -> JobRequest:
        if self.kind == "image_to_image" and self.strength is None:
            raise ValueError("got image_to_image without a strength; expected one above 0 up to 1")
        if self.kind == "vary" and self.vary is None:
            raise ValueError("got vary without a number; expected `vary` from 0 to 1")
        if self.seed is not None and self.seed + self.n - 1 > MOST_SEED:
            raise ValueError(f"got seed {self.seed} for {self.n} images; expected at most 2^63 - n")
        return self

    @property
    def needs_source(self) -> bool:
        """Whether an image has to come with it."""
        return self.kind != "sample"


def _steps(settings: dict[str, JsonValue]) -> float:
    """The most steps that settings of a stage may mean; the engine looks at all else."""
    steps, timesteps = settings.get("steps"), settings.get("timesteps")
    counts = [steps if isinstance(steps, int | float) else 0]
    counts.append(len(timesteps) if isinstance(timesteps, list) else 0)
    return max(counts)
