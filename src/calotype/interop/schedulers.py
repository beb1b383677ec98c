"""diffusers' schedulers: their settings as this library's schedule and sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calotype.config.schedule import DiscreteScheduleConfig
from calotype.interop.safety import ForeignSettings

_KNOWN = (
    "num_train_timesteps beta_start beta_end beta_schedule variance_type clip_sample "
    "prediction_type thresholding dynamic_thresholding_ratio clip_sample_range sample_max_value "
    "timestep_spacing"
).split()
_FIXED = {"trained_betas": (None,), "steps_offset": (0,), "rescale_betas_zero_snr": (False,)}
_PREDICTIONS: dict[Any, Literal["eps", "v", "x"]] = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x",
}
_INTERPOLATIONS = {
    "learned_range": 0.0,
    "fixed_small": 0.0,
    "fixed_small_log": 0.0,
    "fixed_large": 1.0,
}


@dataclass(frozen=True)
class SchedulerSettings:
    """What a scheduler says of a model and of sampling with it.

    The network predicts the variance of the reverse step, or `interpolation` is between its bounds.
    Thresholding is dynamic, or clips to `clip_range` where `threshold_percentile` is None, or there
    is none where `static_clip` is False, too.
    """

    schedule: DiscreteScheduleConfig
    parametrization: Literal["eps", "v", "x"]
    learned_variance: bool
    interpolation: float
    threshold_percentile: float | None
    threshold_ceiling: float | None
    static_clip: bool
    clip_range: float


def read_scheduler(path: Path) -> SchedulerSettings:
    """Settings of a `DDPMScheduler` or `UnCLIPScheduler`, of its folder.

    Raises:
        ConfigError: another class, unknown keys, or values that have no counterpart here.
    """
    data = ForeignSettings.read(path / "scheduler_config.json")
    kind = data.check(("DDPMScheduler", "UnCLIPScheduler"), _KNOWN, _FIXED)
    unclip = kind == "UnCLIPScheduler"
    default = "fixed_small_log" if unclip else "fixed_small"
    variance = data.one_of("variance_type", (default, *_INTERPOLATIONS))
    thresholding = bool(data.data.get("thresholding", False))
    ratio = data.number("dynamic_thresholding_ratio", 0.995)
    ceiling = data.number("sample_max_value", 1.0)
    return SchedulerSettings(
        schedule=_table(data, unclip=unclip),
        parametrization=_PREDICTIONS[data.one_of("prediction_type", tuple(_PREDICTIONS))],
        learned_variance=variance == "learned_range",
        interpolation=_INTERPOLATIONS[variance],
        threshold_percentile=ratio if thresholding else None,
        threshold_ceiling=ceiling if thresholding else None,
        static_clip=bool(data.data.get("clip_sample", True)),
        clip_range=data.number("clip_sample_range", 1.0),
    )


def _table(data: ForeignSettings, *, unclip: bool) -> DiscreteScheduleConfig:
    betas = ("squaredcos_cap_v2", "linear") if unclip else ("linear", "squaredcos_cap_v2")
    spacings = ("leading", "linspace", "trailing")
    return DiscreteScheduleConfig(
        betas=data.one_of("beta_schedule", betas),
        steps=int(data.number("num_train_timesteps", 1000)),
        beta_start=data.number("beta_start", 1e-4),
        beta_end=data.number("beta_end", 0.02),
        spacing="linspace" if unclip else data.one_of("timestep_spacing", spacings),
    )
