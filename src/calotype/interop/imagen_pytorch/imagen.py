"""`Imagen` and `ElucidatedImagen` with the arguments of imagen-pytorch 2.1.0.

Schedules, samplers and losses are this library's; see `CascadedUnets` and `Formulation`.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.config import (
    ElucidatedSampleOptions,
    ElucidatedSettings,
    ImagenSettings,
    SampleOptions,
)
from calotype.interop.imagen_pytorch.formulation import Formulation
from calotype.interop.imagen_pytorch.options import per_item


class Imagen(CascadedUnets):
    """A cascade that predicts noise, images or v over a schedule of log-SNR.

    It samples with the ancestral sampler; its arguments are the fields of `ImagenSettings`.
    """

    settings: ImagenSettings
    settings_kind = ImagenSettings


class ElucidatedImagen(CascadedUnets):
    """A cascade in the formulation of Karras et al. 2022 (arXiv:2206.00364).

    It samples with Heun's method and churn; `sample` takes `sigma_min` and `sigma_max` too. Its
    arguments are the fields of `ElucidatedSettings`.
    """

    settings: ElucidatedSettings
    settings_kind = ElucidatedSettings
    options_kind = ElucidatedSampleOptions

    def _sampling_formulations(self, options: SampleOptions) -> tuple[Formulation, ...]:
        given = {name: getattr(options, name) for name in ("sigma_min", "sigma_max")}
        changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        if not changes:
            return self.formulations
        return replace(self.settings, **changes).formulations()


def change_steps(model: Imagen | ElucidatedImagen, steps: int) -> None:
    """Let the first U-Net sample in so many steps; the others as they did."""
    name = "num_sample_steps" if isinstance(model, ElucidatedImagen) else "timesteps"
    own = per_item(name, getattr(model.settings, name), len(model.unets))
    settings: Any = replace(model.settings, **{name: (steps, *own[1:])})  # type: ignore[arg-type]
    model.settings, model.formulations = settings, settings.formulations()


def _with_fields(function: Any, kind: type, first: int) -> inspect.Signature:
    """The signature with the fields of `kind` in the place of `**arguments`."""
    own = list(inspect.signature(function).parameters.values())[first:-1]
    return inspect.Signature([*own, *inspect.signature(kind).parameters.values()])


# What help() and editors show.
for _kind in (Imagen, ElucidatedImagen):
    _signature = _with_fields(_kind.__init__, _kind.settings_kind, 1)
    type.__setattr__(_kind, "__signature__", _signature)
vars(CascadedUnets.sample)["__signature__"] = _with_fields(CascadedUnets.sample, SampleOptions, 0)
