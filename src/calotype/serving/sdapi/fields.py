"""What the requests may say: the fields of theirs that do something here; others are let pass."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from calotype.serving.job import (
    MOST_IMAGES,
    MOST_PROMPT,
    MOST_SEED,
    MOST_STEPS,
    ClassName,
    Side,
)

MOST_FACTOR = 8.0
_Name = Annotated[str, Field(max_length=200)]
_Prompt = Annotated[str, Field(max_length=MOST_PROMPT)]
_Count = Annotated[int, Field(ge=1, le=MOST_IMAGES)]
_Factor = Annotated[float, Field(gt=0, le=MOST_FACTOR)]
_Length = Annotated[int, Field(ge=0, le=4096)]


class Fields(BaseModel):
    """What a request says; None = not said, as theirs have it."""

    model_config = ConfigDict(
        extra="allow", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )

    @property
    def others(self) -> dict[str, Any]:
        """Fields that have no effect here."""
        return self.model_extra or {}


class Call(Fields):
    """What both ways of making images have; `class` is ours."""

    prompt: _Prompt | None = None
    negative_prompt: _Prompt | None = None
    class_name: ClassName | None = Field(default=None, alias="class")
    seed: Annotated[int, Field(ge=-1, le=MOST_SEED)] | None = None
    sampler_name: _Name | None = None
    sampler_index: _Name | None = None
    scheduler: _Name | None = None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    cfg_scale: Annotated[float, Field(ge=0, le=1000)] | None = None
    width: Side | None = None
    height: Side | None = None
    batch_size: _Count | None = None
    n_iter: _Count | None = None
    denoising_strength: Annotated[float, Field(ge=0, le=1)] | None = None
    override_settings: dict[str, JsonValue] | None = None
    override_settings_restore_afterwards: bool | None = None
    send_images: bool | None = None
    force_task_id: _Name | None = None
    infotext: Annotated[str, Field(max_length=3 * MOST_PROMPT)] | None = None


class TextToImage(Call):
    """txt2img."""

    enable_hr: bool | None = None
    hr_scale: _Factor | None = None
    hr_resize_x: _Length | None = None
    hr_resize_y: _Length | None = None


class ImageToImage(Call):
    """img2img: a source begun again, or the hole of a mask made anew."""

    init_images: list[str] | None = None
    mask: str | None = None
    mask_blur: _Length | None = None
    inpainting_fill: Annotated[int, Field(ge=0, le=3)] | None = None
    inpaint_full_res: bool | None = None
    inpaint_full_res_padding: _Length | None = None
    inpainting_mask_invert: Annotated[int, Field(ge=0, le=1)] | None = None
    resize_mode: Annotated[int, Field(ge=0, le=3)] | None = None
    include_init_images: bool | None = None


class Extras(Fields):
    """extra-single-image: a larger version of an image."""

    image: str
    resize_mode: Annotated[int, Field(ge=0, le=1)] | None = None
    upscaling_resize: _Factor | None = None
    upscaling_resize_w: Side | None = None
    upscaling_resize_h: Side | None = None
    upscaling_crop: bool | None = None
    upscaler_1: _Name | None = None


class PngInfo(Fields):
    """png-info: an image that may say how it was made."""

    image: str
