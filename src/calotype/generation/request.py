"""What a user asks for, and how the text of it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import override
from calotype.errors import ConfigError, UsageError

if TYPE_CHECKING:  # torch stays out of what the command line reads
    from calotype.diffusion.gradient_guidance import GuidanceForm

Size = int | tuple[int, int]
MOST_CANDIDATES = 1024
MOST_SCALE = 1e9
"""Of a guide."""
GUIDED_STEPS = 32
"""Least steps of a guided base that starts from a draft, where nothing else is asked for."""


@dataclass(frozen=True)
class GuideRequest:
    """What guides the base by its gradient; None = nothing, or as in `like`'s image.

    Args:
        classifier: folder of a classifier, which pulls towards the request's class, or towards one
            that an image's seed chooses.
        classifier_scale: how strongly; None = 1, 0 = off.
        clip_scale: how strongly the request's CLIP pulls towards the caption; 0 = off.
        form: what they move: "score" (None, too) or, of ancestral steps, "mean".

    Raises:
        UsageError: a scale is out of range.
    """

    classifier: str | None = None
    classifier_scale: float | None = None
    clip_scale: float | None = None
    form: GuidanceForm | None = None

    def __post_init__(self) -> None:
        for option, scale in (
            ("--classifier-scale", self.classifier_scale),
            ("--clip-guidance", self.clip_scale),
        ):
            if scale is not None and not 0 <= scale <= MOST_SCALE:
                raise UsageError(
                    f"got {option} {scale:g}; expected a number from 0 (off) to {MOST_SCALE:g}, "
                    "such as 3"
                )

    @property
    def asked(self) -> bool:
        """Whether anything of it is."""
        return self != GuideRequest()

    @property
    def pulls(self) -> bool:
        """Whether one of them has a strength above 0."""
        return bool(self.clip_scale) or (self.classifier is not None and self.classifier_scale != 0)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a model, beside captions and seeds; None = the model's own, or `like`'s.

    Args:
        model: None or "default", a cascade folder or the folder of a training run.
        negative: what the images are not to show.
        size: resolution of the last stage that samples, or (height, width).
        width: in pixels; not beside `size`.
        height: in pixels; not beside `size`.
        steps: of the first stage.
        sampler: of the first stage.
        guidance: weight of the first stage; 1 = off.
        variety: of the first stage, which has to start from a draft, in [0, 1].
        stage_options: texts such as "256:steps=8,aug_level=0.2".
        like: recipe of an image whose settings are taken, from `check_recipe`.
        loras: texts FILE[:WEIGHT].
        merge_lora: add LoRAs to the weights, or compute them beside.
        device: cpu, cuda, cuda:1 or mps.
        dtype: float32 or bfloat16.
        threads: of the CPU.
        best_of: candidates of each image, of which a CLIP keeps the best; None = no choice.
        clip: folder of the CLIP that guides, else of the one that ranks; None = the embedded one.
        tiled: enlarge in tiles, by the last stage again where it does not reach.
        class_name: the class that is wanted.
        guides: what guides the base by its gradient.
    """

    model: str | None = None
    negative: str | None = None
    size: Size | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    variety: float | None = None
    stage_options: Sequence[str] | None = None
    like: Mapping[str, Any] | None = None
    loras: Sequence[str] | None = None
    merge_lora: bool = True
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    best_of: int | None = None
    clip: str | None = None
    tiled: bool = False
    class_name: str | None = None
    guides: GuideRequest = GuideRequest()

    def __post_init__(self) -> None:
        """Check that there is something to choose from.

        Raises:
            UsageError: candidates out of range, or for an image that was chosen already.
        """
        if self.best_of is None:
            return
        if not 1 <= self.best_of <= MOST_CANDIDATES:
            raise UsageError(f"got --best-of {self.best_of}; expected 1 to {MOST_CANDIDATES}")
        if self.like is not None:
            raise UsageError("got --best-of with --like, which samples one image; choose one")

    @property
    def ranking_clip(self) -> str | None:
        """The CLIP that ranks: where one guides, the embedded one, which did not."""
        guides = self.guides.clip_scale is not None and self.guides.clip_scale > 0
        return None if guides else self.clip

    @property
    def seeds_each(self) -> int:
        """Seeds that an image takes: one for each candidate."""
        return 1 if self.best_of is None else self.best_of


def parse_size(text: str) -> Size:
    """A resolution such as 256, or WIDTHxHEIGHT as (height, width)."""
    match = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", text.strip())
    if match is None:
        raise UsageError(f"got size {text!r:.80}; expected e.g. 256, or WIDTHxHEIGHT as 96x64")
    if match[2] is None:
        return int(match[1])
    return int(match[2]), int(match[1])


def requested_size(
    request: Request, resolutions: Sequence[int]
) -> tuple[int, tuple[int, int] | None]:
    """The last stage that samples, and height and width of its images; None = square.

    Raises:
        UsageError: there is no such stage, or sizes are given in two ways.
    """
    stop_at, size = max(resolutions), None
    if request.like is not None:
        last = request.like["stages"][-1]
        stop_at, size = last["resolution"], (last["height"], last["width"])
    asked = request.size
    if request.width is not None or request.height is not None:
        if asked is not None:
            raise UsageError("got --size and --width or --height; expected one of them")
        height, width = (stop_at, stop_at) if size is None else size
        asked = (
            height if request.height is None else request.height,
            width if request.width is None else request.width,
        )
    if isinstance(asked, int):
        stop_at, size = asked, None
    elif asked is not None:
        size = asked
        side = math.sqrt(max(1, min(size[0] * size[1], 2**62)))
        stop_at = min(resolutions, key=lambda r: abs(math.log(r / side)))
    if stop_at not in resolutions:
        what = "an image of the stage" if request.size is None else "--size"
        known = list(resolutions)
        raise UsageError(f"got {what} {stop_at}; expected one of {known}, or WIDTHxHEIGHT")
    return stop_at, size


def requested_sampling(
    request: Request, defaults: Mapping[int, SamplingConfig]
) -> dict[int, SamplingConfig]:
    """The sampling settings of every stage.

    A base that starts from a draft leaves a guide little to decide: where one pulls, it starts
    where noise hides the draft and takes more steps, unless it makes an image again or more is
    said.

    Args:
        request: what the user asked for.
        defaults: of the model, or of the image that is made again, by resolution, coarse to fine.

    Raises:
        ConfigError: an unknown stage or setting, a value out of range, or variety without a draft.
    """
    settings = dict(defaults)
    first = next(iter(settings))
    base = settings[first]
    if base.start == "draft" and request.guides.pulls and request.like is None:
        base = replace(base, variety=1.0, steps=max(base.steps, GUIDED_STEPS))
    if request.steps is not None:
        base = replace(base, steps=request.steps, timesteps=None)
    if request.sampler is not None:
        known = get_args(get_type_hints(SamplingConfig)["sampler"])
        if request.sampler not in known:
            got = f"got --sampler {request.sampler!r:.80}"
            raise ConfigError(f"{got}; expected one of {list(known)}")
        base = override(base, [f'sampler="{request.sampler}"'])
    if request.guidance is not None:
        base = replace(base, guidance_weight=request.guidance)
    if request.variety is not None:
        if base.start != "draft":
            raise ConfigError(
                f"got --variety {request.variety:g} for a base that starts from noise; expected a "
                "model, or a recipe of --like, that starts from a draft, or no --variety"
            )
        base = replace(base, variety=request.variety)
    settings[first] = base
    for option in request.stage_options or ():
        resolution, changed = _stage_option(option, settings)
        settings[resolution] = changed
    return settings


def _stage_option(
    option: str, settings: Mapping[int, SamplingConfig]
) -> tuple[int, SamplingConfig]:
    stage, colon, assignments = option.partition(":")
    resolution = int(stage) if re.fullmatch("[0-9]{1,6}", stage.strip()) else 0
    if not colon or resolution not in settings:
        raise ConfigError(
            f"got stage option {option!r:.200}; expected e.g. {next(iter(settings))}:steps=8, for "
            f"one of the stages {list(settings)}"
        )
    # Commas within brackets belong to a value: guidance_interval=[0.2,5].
    parts = re.split(r",(?=\s*[a-z_]+\s*=)", assignments)
    changed = override(settings[resolution], parts)
    if changed.steps != settings[resolution].steps and "timesteps" not in assignments:
        changed = replace(changed, timesteps=None)  # a published list would take their place
    return resolution, changed
