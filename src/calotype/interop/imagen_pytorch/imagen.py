"""`Imagen` and `ElucidatedImagen` with the arguments of imagen-pytorch 2.1.0.

Schedules, samplers and losses are this library's; see `CascadedUnets` and `Formulation`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.config import (
    ElucidatedSampleOptions,
    ElucidatedSettings,
    ImagenSettings,
    SampleOptions,
    per_stage,
)
from calotype.interop.imagen_pytorch.formulation import Formulation
from calotype.interop.imagen_pytorch.options import read_options
from calotype.text import TextEncoder


class Imagen(CascadedUnets):
    """A cascade that predicts noise, images or v over a schedule of log-SNR.

    It draws with the ancestral sampler.

    Args:
        unets: one `Unet` or several, coarse to fine.
        text_encoder: an encoder or its spec ("t5:FOLDER", "minilm", ...); not in imagen-pytorch.
        **arguments: the fields of `ImagenSettings`.

    Raises:
        ConfigError: an argument is unknown, out of range or does not fit the others.
    """

    settings: ImagenSettings

    def __init__(
        self,
        unets: nn.Module | Sequence[nn.Module],
        *,
        text_encoder: TextEncoder | str | None = None,
        **arguments: Any,
    ) -> None:
        settings = read_options(ImagenSettings, arguments, owner="Imagen")
        super().__init__(unets, settings, settings.formulations(), text_encoder=text_encoder)


class ElucidatedImagen(CascadedUnets):
    """A cascade in the formulation of Karras et al. 2022 (arXiv:2206.00364).

    It draws with Heun's method and churn; `sample` takes `sigma_min` and `sigma_max` too.

    Args:
        unets: one `Unet` or several, coarse to fine.
        text_encoder: an encoder or its spec; not in imagen-pytorch.
        **arguments: the fields of `ElucidatedSettings`.

    Raises:
        ConfigError: an argument is unknown, out of range or does not fit the others.
    """

    settings: ElucidatedSettings
    options_kind = ElucidatedSampleOptions

    def __init__(
        self,
        unets: nn.Module | Sequence[nn.Module],
        *,
        text_encoder: TextEncoder | str | None = None,
        **arguments: Any,
    ) -> None:
        settings = read_options(ElucidatedSettings, arguments, owner="ElucidatedImagen")
        super().__init__(unets, settings, settings.formulations(), text_encoder=text_encoder)

    def _stage_formulations(self, options: SampleOptions) -> tuple[Formulation, ...]:
        assert isinstance(options, ElucidatedSampleOptions)
        if options.sigma_min is None and options.sigma_max is None:
            return self.formulations
        return self.settings.formulations(sigma_min=options.sigma_min, sigma_max=options.sigma_max)


def change_steps(model: Imagen | ElucidatedImagen, steps: int) -> None:
    """Let the first U-Net draw in so many steps; the others as they did."""
    name = "num_sample_steps" if isinstance(model, ElucidatedImagen) else "timesteps"
    own = per_stage(name, getattr(model.settings, name), len(model.unets))
    settings: Any = replace(model.settings, **{name: (steps, *own[1:])})  # type: ignore[arg-type]
    model.settings, model.formulations = settings, settings.formulations()


def _with_fields(function: Any, kind: type, first: int) -> inspect.Signature:
    """The signature with the fields of `kind` in the place of `**arguments`."""
    own = list(inspect.signature(function).parameters.values())[first:-1]
    kept = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    only = [p for p in own if p.kind is p.KEYWORD_ONLY]
    fields = list(inspect.signature(kind).parameters.values())
    return inspect.Signature([*kept, *only, *fields])


# What help() and editors show.
type.__setattr__(Imagen, "__signature__", _with_fields(Imagen.__init__, ImagenSettings, 1))
type.__setattr__(
    ElucidatedImagen,
    "__signature__",
    _with_fields(ElucidatedImagen.__init__, ElucidatedSettings, 1),
)
vars(CascadedUnets.sample)["__signature__"] = _with_fields(CascadedUnets.sample, SampleOptions, 0)
