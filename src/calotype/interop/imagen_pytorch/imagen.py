"""`Imagen` and `ElucidatedImagen` with the arguments of imagen-pytorch 2.1.0.

Schedules, samplers and losses are this library's; see `CascadedUnets` and `Formulation`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from calotype.interop.imagen_pytorch.cascade import CascadedUnets, Texts
from calotype.interop.imagen_pytorch.config import (
    ElucidatedSampleOptions,
    ElucidatedSettings,
    ImagenSettings,
    SampleOptions,
)
from calotype.interop.imagen_pytorch.formulation import Formulation
from calotype.interop.imagen_pytorch.options import read_options
from calotype.text import TextEncoder


class Imagen(CascadedUnets):
    """A cascade that predicts noise, pictures or v over a schedule of log-SNR.

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

    def sample(
        self,
        texts: Texts = None,
        text_masks: Tensor | None = None,
        text_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Draw pictures with the ancestral sampler.

        Args:
            texts: captions, or give `text_embeds`.
            text_masks: (B, L) bool; None = where states are not zero.
            text_embeds: states (B, L, D).
            **options: the fields of `SampleOptions`.

        Returns:
            Pictures of the last stage drawn, (B, C, H, W) in [0, 1]; PIL images with
            `return_pil_images`; a list over stages with `return_all_unet_outputs`.
        """
        read = read_options(SampleOptions, options, owner="Imagen.sample")
        _warn_start_without_skip(read)
        return self._sample(texts, text_masks, text_embeds, read)


class ElucidatedImagen(CascadedUnets):
    """A cascade in the formulation of Karras et al. 2022 (arXiv:2206.00364).

    Args:
        unets: one `Unet` or several, coarse to fine.
        text_encoder: an encoder or its spec; not in imagen-pytorch.
        **arguments: the fields of `ElucidatedSettings`.

    Raises:
        ConfigError: an argument is unknown, out of range or does not fit the others.
    """

    settings: ElucidatedSettings

    def __init__(
        self,
        unets: nn.Module | Sequence[nn.Module],
        *,
        text_encoder: TextEncoder | str | None = None,
        **arguments: Any,
    ) -> None:
        settings = read_options(ElucidatedSettings, arguments, owner="ElucidatedImagen")
        super().__init__(unets, settings, settings.formulations(), text_encoder=text_encoder)

    def sample(
        self,
        texts: Texts = None,
        text_masks: Tensor | None = None,
        text_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Draw pictures with Heun's method and churn; arguments as in `Imagen.sample`.

        `sigma_min` and `sigma_max` may be given here too.
        """
        read = read_options(ElucidatedSampleOptions, options, owner="ElucidatedImagen.sample")
        _warn_start_without_skip(read)
        return self._sample(texts, text_masks, text_embeds, read)

    def _stage_formulations(self, options: SampleOptions) -> tuple[Formulation, ...]:
        assert isinstance(options, ElucidatedSampleOptions)
        if options.sigma_min is None and options.sigma_max is None:
            return self.formulations
        return self.settings.formulations(
            sigma_min=options.sigma_min, sigma_max=options.sigma_max
        )


def _warn_start_without_skip(options: SampleOptions) -> None:
    if options.init_images is not None and not options.skip_steps:
        warnings.warn(
            "got init_images without skip_steps: noised to the first level, little is left of "
            "them; give skip_steps, e.g. half of the steps",
            stacklevel=3,
        )


def _with_fields(function: Any, kind: type, first: int) -> inspect.Signature:
    """The signature with the fields of `kind` in the place of `**arguments`."""
    own = list(inspect.signature(function).parameters.values())[first:-1]
    kept = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    only = [p for p in own if p.kind is p.KEYWORD_ONLY]
    fields = list(inspect.signature(kind).parameters.values())
    return inspect.Signature([*kept, *only, *fields])


for _class, _settings, _options in (
    (Imagen, ImagenSettings, SampleOptions),
    (ElucidatedImagen, ElucidatedSettings, ElucidatedSampleOptions),
):
    # What help() and editors show.
    vars(_class.sample)["__signature__"] = _with_fields(_class.sample, _options, 0)
    type.__setattr__(_class, "__signature__", _with_fields(_class.__init__, _settings, 1))
