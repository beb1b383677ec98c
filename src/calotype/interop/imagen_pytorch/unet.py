"""imagen-pytorch's own U-Net, for programs written for that package and converted checkpoints."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from calotype.interop.imagen_pytorch.inputs import Guidance, UnetInputs
from calotype.interop.imagen_pytorch.network import UnetLayers
from calotype.interop.imagen_pytorch.options import read_options
from calotype.interop.imagen_pytorch.settings import UnetSettings


class Unet(UnetLayers):
    """The U-Net of imagen-pytorch 2.1.0; its arguments are the fields of `UnetSettings`.

    Raises:
        ConfigError: an argument is unknown, out of range, or one that package ignores.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    """What a preset sets; arguments override it."""

    def __init__(self, **arguments: Any) -> None:
        arguments = {**self.defaults, **arguments}
        super().__init__(read_options(UnetSettings, arguments, owner=type(self).__name__))

    def cast_model_parameters(self, **changes: Any) -> Self:
        """This network, or a new one where the settings differ (its weights start anew)."""
        own = {**dataclasses.asdict(self.settings), "channels_out": self.settings.out_channels}
        if all(own[name] == value for name, value in changes.items()):
            return self
        return type(self)(**{**own, **changes})

    def to_config_and_state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Its arguments as plain data, and its weights."""
        return dataclasses.asdict(self.settings), self.state_dict()

    @classmethod
    def from_config_and_state_dict(
        cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]
    ) -> Self:
        """The network of `to_config_and_state_dict`; names of imagen-pytorch's weights fit, too."""
        unet = cls(**config)
        unet.load_state_dict(dict(state_dict))
        return unet

    def persist_to_file(self, path: str | Path) -> None:
        """Write it into one safetensors file; the suffix does not matter."""
        from calotype.interop.imagen_pytorch.files import save_unet

        save_unet(self, Path(path))

    @classmethod
    def hydrate_from_file(cls, path: str | Path) -> Self:
        """Read a file of `persist_to_file`; imagen-pytorch's own: `calotype convert`.

        Raises:
            CalotypeError: no such file, a pickle, or one that does not fit.
        """
        from calotype.interop.imagen_pytorch.files import read_unet

        config, weights = read_unet(Path(path))
        return cls.from_config_and_state_dict(config, weights)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        lowres_cond_img: Tensor | None = None,
        lowres_noise_times: Tensor | None = None,
        text_embeds: Tensor | None = None,
        text_mask: Tensor | None = None,
        cond_images: Tensor | None = None,
        self_cond: Tensor | None = None,
        cond_drop_prob: float = 0.0,
    ) -> Tensor:
        """Predict for noisy images (B, C, H, W) at log-SNR `time` (B,).

        Args:
            x: noisy images.
            time: their level, as the network was trained: log-SNR, or ln(sigma) / 4.
            lowres_cond_img: (B, C, H, W), enlarged and noised.
            lowres_noise_times: the log-SNR of that noise, (B,).
            text_embeds: (B, L, D).
            text_mask: (B, L) bool.
            cond_images: (B, C', h, w).
            self_cond: the last estimate of the clean images; None = zeros.
            cond_drop_prob: chance of the null caption, for each image, from torch's global
                generator.
        """
        text = None
        if text_embeds is not None and self.settings.cond_on_text:
            keep = torch.rand(len(x)) >= cond_drop_prob
            text = self.encode_text(text_embeds, text_mask, keep.to(x.device))
        inputs = UnetInputs(text, lowres_cond_img, lowres_noise_times, cond_images)
        return self.predict(x, time, inputs, self_cond=self_cond)

    def forward_with_cond_scale(
        self,
        x: Tensor,
        time: Tensor,
        *,
        cond_scale: float = 1.0,
        remove_parallel_component: bool = True,
        keep_parallel_frac: float = 0.0,
        **kwargs: Any,
    ) -> Tensor:
        """`forward`, guided away from the null caption; see `Guidance`."""
        output: Tensor = self.forward(x, time, **kwargs)
        guidance = Guidance(cond_scale, remove_parallel_component, keep_parallel_frac)
        if cond_scale == 1:
            return output
        return guidance(output, self.forward(x, time, **{**kwargs, "cond_drop_prob": 1.0}))


Unet.__signature__ = inspect.signature(UnetSettings)  # type: ignore[attr-defined]
