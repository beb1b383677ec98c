"""How a stage samples, and how it treats the low-resolution image it enlarges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from calotype.config.ranges import Fraction, GuidanceWeight, Range, Settings, Steps, require
from calotype.config.schedule import DiscreteScheduleConfig

Sampler = Literal["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"]
# sigma/alpha beyond which a draft, an image of values in [-1, 1], is lost in noise.
MOST_VARIED_SIGMA = 20.0


@dataclass(frozen=True, kw_only=True)
class LowresConfig:
    """How a stage's low-resolution image is enlarged and noised.

    Args:
        filter: "bicubic" is this library's, clipped to [-1, 1]; the others are not clipped.
            "bilinear_corners" puts the corner pixels of both images on each other.
        schedule: table of its noise, at timestep `aug_level * steps`; None = the cosine schedule
            at time `aug_level`.
    """

    filter: Literal["bicubic", "bicubic_antialias", "bilinear", "bilinear_corners"] = "bicubic"
    schedule: DiscreteScheduleConfig | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Settings):
    """How a stage samples.

    Args:
        steps: evaluations of the grid.
        sampler: which step.
        grid: levels of the schedule at equal times, or Karras et al. 2022, equation 5.
        start: what the first level holds: noise, or the network's draft of the caption with noise
            added. "draft" needs the Karras grid, with a sigma_max of about 0.5 to 2.
        variety: how far above sigma_max sampling from a draft starts, in [0, 1]: at
            sigma_max^(1 - variety) * 20^variety. 0 keeps to the draft, 1 starts where noise
            hides it.
        sigma_max: noisiest sigma/alpha of the Karras grid.
        sigma_min: last noisy sigma/alpha of the Karras grid.
        rho: curvature of the Karras grid.
        guidance_weight: Imagen's w; 1 = off.
        guidance_interval: sigma/alpha between which guidance acts (Kynkäänniemi et al. 2024);
            None = everywhere.
        guidance_rescale: phi of Lin et al. 2023, section 3.4; 0 = off.
        oscillating_guidance: alternate guidance with weight 1 (Imagen Video, Ho et al. 2022).
        threshold_percentile: dynamic-threshold percentile in (0, 1]; None = static clip.
        static_clip: what None means: estimates are clipped to [-1, 1], or (false) not thresholded
            at all. With a percentile it changes nothing.
        threshold_ceiling: largest divisor of dynamic thresholding, at least 1; None = none.
        timesteps: of a discrete schedule, falling; they take the place of `steps`.
        aug_level: noise on the low-resolution image, in [0, 1].
        ddpm_interpolation: the paper's gamma of ancestral sampling, in [0, 1].
    """

    steps: Steps = 256
    sampler: Sampler = "ddpm"
    grid: Literal["schedule", "karras"] = "schedule"
    start: Literal["noise", "draft"] = "noise"
    variety: Fraction = 0.0
    sigma_max: Annotated[float, Range(1e-4, 1e4)] = 80.0
    sigma_min: Annotated[float, Range(1e-4, 1e4)] = 0.02
    rho: Annotated[float, Range(0.5, 50.0)] = 5.0
    guidance_weight: GuidanceWeight = 1.0
    guidance_interval: (
        tuple[Annotated[float, Range(0.0, 1e6)], Annotated[float, Range(0.0, 1e6)]] | None
    ) = None
    guidance_rescale: Fraction = 0.0
    oscillating_guidance: bool = False
    threshold_percentile: Annotated[float, Range(1e-6, 1.0)] | None = 0.995
    static_clip: bool = True
    threshold_ceiling: Annotated[float, Range(1.0, 1e6)] | None = None
    timesteps: tuple[Annotated[int, Range(0, 99_999)], ...] | None = None
    aug_level: Fraction = 0.0
    ddpm_interpolation: Fraction = 0.3

    ADDED = ("static_clip",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.start == "noise" or self.grid == "karras",
            f'got start="draft" with grid="{self.grid}"; expected grid="karras", whose sigma_max '
            "is the noise added to the draft",
        )
        require(
            self.start == "draft" or self.variety == 0,
            f'got variety={self.variety} with start="noise"; expected variety=0, or start="draft"',
        )
        falling = self.timesteps is None or all(a > b for a, b in pairwise((*self.timesteps, -1)))
        require(
            falling and self.timesteps != (),
            "got timesteps that do not fall to 0 or above; expected e.g. [999, 500, 0]",
        )
        require(
            self.sigma_min < self.sigma_max,
            f"got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; "
            "expected 0 < sigma_min < sigma_max",
        )
        interval = self.guidance_interval
        require(
            interval is None or interval[0] <= interval[1],
            f"got guidance_interval={interval}; expected two rising sigma/alpha, such as [0.5, 5]",
        )

    @property
    def first_sigma(self) -> float:
        """sigma/alpha of the first level of a Karras grid: `sigma_max`, raised by `variety`."""
        if self.sigma_max >= MOST_VARIED_SIGMA:
            return self.sigma_max
        raised: float = self.sigma_max ** (1 - self.variety) * MOST_VARIED_SIGMA**self.variety
        return raised
