"""Guides: networks that say of noisy images how likely they are what is wanted.

A classifier is one, and a CLIP that knows noise. The gradient of what they say pulls the images
that a base samples; see `diffusion.gradient_guidance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion.gradient_guidance import GradientGuidance, GuidanceForm, LogLikelihood
from calotype.errors import UsageError

ANCESTRAL = ("ddpm", "dpmpp_2m_sde")
"""Samplers whose steps have a mean and a variance: what the form "mean" moves."""


class Guide(Protocol):
    """What can pull images."""

    @property
    def name(self) -> str:
        """What it is called in messages, such as "the classifier styles"."""

    @property
    def resolution(self) -> int:
        """Side of the images that it looks at."""

    def log_likelihood(self, captions: Sequence[str], seeds: Sequence[int]) -> LogLikelihood:
        """How likely noisy images are what is wanted where their captions and seeds are these."""


@dataclass(frozen=True)
class Pull:
    """A guide, and how it is followed.

    Args:
        guide: what says what is wanted.
        scale: strength, at least 0; 0 = off.
        form: what is moved: the score, or the mean of ancestral steps.
    """

    guide: Guide
    scale: float
    form: GuidanceForm = "score"

    def check(self, config: StageConfig, sampling: SamplingConfig, size: tuple[int, int]) -> None:
        """Refuse a stage that it cannot pull.

        Raises:
            UsageError: the stage enlarges, is of another size, or its sampler has no mean to move.
        """
        check_pull(self.guide.name, self.guide.resolution, config, size)
        check_form(self.form, sampling)

    def guidance(self, captions: Sequence[str], seeds: Sequence[int]) -> GradientGuidance:
        """What pulls images of captions and seeds, one each."""
        return GradientGuidance(self.guide.log_likelihood(captions, seeds), self.scale, self.form)


def check_pull(
    name: str, resolution: int, config: StageConfig, size: tuple[int, int] | None = None
) -> None:
    """Refuse a guide of `resolution` for a stage, or for its images of another height and width."""
    height, width = (config.resolution, config.resolution) if size is None else size
    if config.lowres_resolution is not None:
        raise UsageError(
            f"got {name} for the {config.resolution} stage, which enlarges; expected a base of "
            f"{resolution} pixels, which is what guides pull"
        )
    if (height, width) != (resolution, resolution):
        raise UsageError(
            f"got {name} of {resolution}x{resolution} for a base that samples {width}x{height}; "
            "expected the same size: train a guide of the base's resolution, or sample a square"
        )


def check_form(form: GuidanceForm, sampling: SamplingConfig) -> None:
    """Refuse to move the mean of steps that have none."""
    if form == "mean" and sampling.sampler not in ANCESTRAL:
        raise UsageError(
            f"got guidance of the mean with the sampler {sampling.sampler}, whose steps have no "
            f"variance; expected one of {list(ANCESTRAL)}, or guidance of the score"
        )
