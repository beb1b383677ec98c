"""diffusers' schedulers: their settings as this library's schedule and sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from calotype.config.schedule import DiscreteScheduleConfig
from calotype.errors import ConfigError
from calotype.interop.safety import refuse_unknown

_KNOWN = (
    "num_train_timesteps beta_start beta_end beta_schedule trained_betas variance_type clip_sample "
    "prediction_type thresholding dynamic_thresholding_ratio clip_sample_range sample_max_value "
    "timestep_spacing steps_offset rescale_betas_zero_snr"
).split()
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
    """What a scheduler says of a model and of drawing with it.

    Args:
        schedule: the table.
        parametrization: what the network predicts.
        learned_variance: whether the network tells the variance of the reverse step.
        interpolation: between the bounds of that variance where it does not.
        threshold_percentile: of dynamic thresholding; None = static.
        threshold_ceiling: of dynamic thresholding.
        clip_range: of the static clip.
    """

    schedule: DiscreteScheduleConfig
    parametrization: Literal["eps", "v", "x"]
    learned_variance: bool
    interpolation: float
    threshold_percentile: float | None
    threshold_ceiling: float | None
    clip_range: float


def read_scheduler(data: Mapping[str, Any], where: str) -> SchedulerSettings:
    """Settings of a `DDPMScheduler` or `UnCLIPScheduler`.

    Raises:
        ConfigError: another class, unknown keys, or values that have no counterpart here.
    """
    kind = data.get("_class_name")
    if kind not in ("DDPMScheduler", "UnCLIPScheduler"):
        raise ConfigError(
            f"{where}: got the class {kind!r:.80}; known: ['DDPMScheduler', 'UnCLIPScheduler']"
        )
    refuse_unknown(data, _KNOWN, where)
    unclip = kind == "UnCLIPScheduler"
    for key, expected in (("trained_betas", None), ("steps_offset", 0)):
        _expect(data, key, (expected,), where)
    _expect(data, "rescale_betas_zero_snr", (False,), where)
    prediction = _expect(data, "prediction_type", tuple(_PREDICTIONS), where)
    default = "fixed_small_log" if unclip else "fixed_small"
    variance = data.get("variance_type", default)
    if variance not in _INTERPOLATIONS:
        raise ConfigError(
            f"{where}: got variance_type={variance!r:.80}; known: {sorted(_INTERPOLATIONS)}"
        )
    thresholding = bool(data.get("thresholding", False))
    if not thresholding and not data.get("clip_sample", True):
        raise ConfigError(
            f"{where}: got neither thresholding nor clip_sample; pixel-space stages here always "
            "keep their estimates in range"
        )
    return SchedulerSettings(
        schedule=_table(data, where, unclip=unclip),
        parametrization=_PREDICTIONS[prediction],
        learned_variance=variance == "learned_range",
        interpolation=_INTERPOLATIONS[variance],
        threshold_percentile=_number(data, "dynamic_thresholding_ratio", 0.995, where)
        if thresholding
        else None,
        threshold_ceiling=_number(data, "sample_max_value", 1.0, where) if thresholding else None,
        clip_range=_number(data, "clip_sample_range", 1.0, where),
    )


def _table(data: Mapping[str, Any], where: str, *, unclip: bool) -> DiscreteScheduleConfig:
    default = "squaredcos_cap_v2" if unclip else "linear"
    betas = data.get("beta_schedule", default)
    if betas not in ("squaredcos_cap_v2", "linear"):
        raise ConfigError(
            f"{where}: got beta_schedule={betas!r:.80}; known: ['linear', 'squaredcos_cap_v2']"
        )
    spacing: Any = "linspace" if unclip else data.get("timestep_spacing", "leading")
    if spacing not in ("leading", "linspace", "trailing"):
        raise ConfigError(
            f"{where}: got timestep_spacing={spacing!r:.80}; known: ['leading', 'linspace', "
            "'trailing']"
        )
    return DiscreteScheduleConfig(
        betas=betas,
        steps=int(_number(data, "num_train_timesteps", 1000, where)),
        beta_start=_number(data, "beta_start", 1e-4, where),
        beta_end=_number(data, "beta_end", 0.02, where),
        spacing=spacing,
    )


def _expect(data: Mapping[str, Any], key: str, values: tuple[Any, ...], where: str) -> Any:
    value = data.get(key, values[0])
    if value not in values:
        raise ConfigError(f"{where}: got {key}={value!r:.80}; expected one of {list(values)}")
    return value


def _number(data: Mapping[str, Any], key: str, default: float, where: str) -> float:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: got {key}={value!r:.80}; expected a number")
    return float(value)
