"""The cascade of U-Nets behind `Imagen` and `ElucidatedImagen`: training losses and sampling.

Images come and go in [0, 1] (or [-1, 1] with `auto_normalize_img=False`); U-Nets are counted from
1. All randomness is torch's global CPU generator, so `torch.manual_seed` repeats a program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from calotype.conditioning import TextEmbedding
from calotype.diffusion import GlobalNoise, add_noise
from calotype.errors import ConfigError, UsageError
from calotype.interop.imagen_pytorch.config import CascadeSettings, SampleOptions
from calotype.interop.imagen_pytorch.formulation import SCHEDULES, Formulation
from calotype.interop.imagen_pytorch.images import as_float, cropped, pil_images
from calotype.interop.imagen_pytorch.inputs import UnetInputs
from calotype.interop.imagen_pytorch.layers import resized
from calotype.interop.imagen_pytorch.options import CudaOptional, read_options
from calotype.interop.imagen_pytorch.presets import NullUnet, real_unet
from calotype.interop.imagen_pytorch.sampling import CascadeSampler, encoded
from calotype.interop.imagen_pytorch.text import LazyText, text_width
from calotype.interop.imagen_pytorch.unet import Unet
from calotype.text import TextEncoder

Texts = Sequence[str] | None


class CascadedUnets(CudaOptional):
    """U-Nets from coarse to fine; each but the first is conditioned on the image of the one before.

    Args:
        unets: one `Unet` or several; those whose settings do not fit their place are made anew.
        text_encoder: an encoder or its spec ("t5:FOLDER", "minilm", ...), instead of the T5 that
            the settings name; not in imagen-pytorch.
        **arguments: the fields of `settings_kind`.

    Raises:
        ConfigError: an argument is unknown, out of range or does not fit the others.
    """

    settings_kind: ClassVar[type[CascadeSettings]]
    options_kind: ClassVar[type[SampleOptions]] = SampleOptions

    def __init__(
        self,
        unets: nn.Module | Sequence[nn.Module],
        *,
        text_encoder: TextEncoder | str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        settings = read_options(self.settings_kind, arguments, owner=type(self).__name__)
        several = isinstance(unets, nn.ModuleList) or not isinstance(unets, nn.Module)
        given: list[nn.Module] = list(unets) if several else [unets]  # type: ignore[arg-type, list-item]
        if len(given) != len(settings.sizes):
            raise ConfigError(
                f"got {len(given)} U-Nets and image_sizes={settings.sizes}; expected one size each"
            )
        self.settings = settings
        self.image_sizes, self.unconditional = settings.sizes, not settings.condition_on_text
        self.formulations = settings.formulations()
        self.lazy_text = LazyText(settings.text_encoder_name, text_encoder)
        self.text_embed_dim = self._text_width() if settings.condition_on_text else None
        self.unets = nn.ModuleList(self._fitted(unet, i) for i, unet in enumerate(given))
        self.crops = settings.crops()
        self.only_train_unet_number = settings.only_train_unet_number

    def _text_width(self) -> int:
        given, encoder = self.settings.text_embed_dim, self.lazy_text.width
        if given is not None and encoder is not None and given != encoder:
            raise ConfigError(f"got text_embed_dim={given} and a text_encoder of width {encoder}")
        if given is None and encoder is None:
            return text_width(self.settings.text_encoder_name)
        return int(encoder if given is None else given)  # type: ignore[arg-type]

    def _fitted(self, unet: nn.Module, place: int) -> nn.Module:
        if not isinstance(unet, Unet | NullUnet):
            raise ConfigError(
                f"got a {type(unet).__name__} as U-Net {place + 1}; expected a Unet or NullUnet "
                "of this package"
            )
        return unet.cast_model_parameters(
            lowres_cond=place > 0,
            cond_on_text=self.settings.condition_on_text,
            text_embed_dim=self.text_embed_dim,
            channels=self.settings.channels,
            channels_out=self.settings.channels,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def get_unet(self, unet_number: int) -> nn.Module:
        """U-Net number 1, 2, ..."""
        if not 1 <= unet_number <= len(self.unets):
            raise UsageError(f"got unet_number={unet_number}; expected 1 to {len(self.unets)}")
        return self.unets[unet_number - 1]

    def encode_text(self, texts: Sequence[str], return_attn_mask: bool = False) -> Any:
        """States (B, L, D) of captions, and their mask (B, L) if asked."""
        text = self.lazy_text(texts).to(self.device)
        return (text.tokens, text.mask) if return_attn_mask else text.tokens

    def forward(
        self,
        images: Tensor,
        unet: nn.Module | None = None,
        texts: Texts = None,
        text_embeds: Tensor | None = None,
        text_masks: Tensor | None = None,
        unet_number: int | None = None,
        cond_images: Tensor | None = None,
    ) -> Tensor:
        """Training loss of one U-Net, a scalar.

        Args:
            images: (B, C, H, W), at least as large as the stage's; float, or uint8 of 0 ... 255.
            unet: used instead of the cascade's own network.
            texts: captions, or give `text_embeds`.
            text_embeds: states (B, L, D).
            text_masks: (B, L) bool; None = where states are not zero.
            unet_number: which one, from 1; needed where there are several.
            cond_images: further images the network is conditioned on.
        """
        number = self._number(unet_number)
        network = real_unet(self.get_unet(number) if unet is None else unet, number)
        images = self._checked(images, self.image_sizes[number - 1])
        states = self._text(texts, text_embeds, text_masks, count=len(images))
        x, lowres = self._example(images, number)
        noise = GlobalNoise(torch.default_generator)
        text = None
        if states is not None:
            keep = noise.uniform((len(x),)) >= self.settings.cond_drop_prob
            text = encoded(network, states, keep.to(x.device))
        times = None
        if lowres is not None:
            one_each = self.settings.per_sample_random_aug_noise_level
            times = noise.uniform((len(x),) if one_each else (1,)).expand(len(x))
            lowres, times = self.augmented(lowres, times, noise)
        extra = None if cond_images is None else as_float(cond_images, like=x)
        inputs = UnetInputs(text, lowres, times, extra)
        return self._loss(network, x, inputs, number, noise)

    def _loss(
        self, unet: Unet, x: Tensor, inputs: UnetInputs, number: int, noise: GlobalNoise
    ) -> Tensor:
        stage = self.formulations[number - 1]

        def network(z: Tensor, time: Tensor, self_cond: Tensor | None) -> Tensor:
            return unet.predict(z, time, inputs, self_cond=self_cond)

        logsnr = stage.training_levels(len(x), noise).float().to(x.device)
        eps = noise.normal(x.shape).to(x)
        estimate = None
        if unet.self_cond and float(noise.uniform((1,))) < 0.5:
            with torch.no_grad():
                z = add_noise(x, logsnr, eps)
                estimate = stage.estimate(network, z, logsnr).clamp(-1, 1)
        return stage.loss(network, x, logsnr, eps=eps, self_cond=estimate).mean()

    def sample(
        self,
        texts: Texts = None,
        text_masks: Tensor | None = None,
        text_embeds: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """Make images.

        Args:
            texts: captions, or give `text_embeds`.
            text_masks: (B, L) bool; None = where states are not zero.
            text_embeds: states (B, L, D).
            **arguments: the fields of `SampleOptions`.

        Returns:
            Images of the last stage sampled, (B, C, H, W) in [0, 1]; PIL images with
            `return_pil_images`; a list over stages with `return_all_unet_outputs`.
        """
        options = read_options(self.options_kind, arguments, owner="sample")
        if options.device is not None:
            self.to(options.device)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                text = self._text(texts, text_embeds, text_masks)
                formulations = self._sampling_formulations(options)
                outputs = list(CascadeSampler(self, formulations, options, text).images())
        finally:
            self.train(was_training)
        unit = [(x + 1) / 2 for x in outputs]
        results: list[Any] = unit if self.settings.auto_normalize_img else outputs
        if options.return_pil_images:
            results = [pil_images(x) for x in unit]
        return results if options.return_all_unet_outputs else results[-1]

    def _sampling_formulations(self, options: SampleOptions) -> tuple[Formulation, ...]:
        return self.formulations

    def _example(self, images: Tensor, number: int) -> tuple[Tensor, Tensor | None]:
        """Images of the stage and their low-resolution versions, enlarged; [-1, 1]."""
        size, mode = self.image_sizes[number - 1], self.settings.resize_mode
        lowest = 0.0 if self.settings.auto_normalize_img else -1.0
        x, lowres = resized(images, size, mode), None
        if number > 1:
            small = resized(images, self.image_sizes[number - 2], mode).clamp(lowest, 1)
            lowres = self.normalized(resized(small, size, mode).clamp(lowest, 1))
        x = self.normalized(x)
        crop = self.crops[number - 1]
        if crop is None:
            return x, lowres
        if lowres is None:
            return cropped(x, crop), None
        both = cropped(torch.cat((x, lowres), dim=1), crop)
        return both[:, : x.shape[1]], both[:, x.shape[1] :]

    def augmented(self, lowres: Tensor, times: Tensor, noise: GlobalNoise) -> tuple[Tensor, Tensor]:
        """The low-resolution image noised to times (B,) of its schedule, and its log-SNR."""
        logsnr = SCHEDULES[self.settings.lowres_noise_schedule].logsnr(times)
        level = logsnr.float().to(lowres.device)
        eps = noise.normal(lowres.shape).to(lowres)
        return add_noise(lowres, level, eps), level

    def _text(
        self, texts: Texts, embeds: Tensor | None, masks: Tensor | None, *, count: int | None = None
    ) -> TextEmbedding | None:
        """Text states; None for a cascade without text."""
        if self.unconditional:
            if texts is not None or embeds is not None or masks is not None:
                raise UsageError("got text for a cascade made with condition_on_text=False")
            return None
        if embeds is None:
            if texts is None:
                raise UsageError("got no text; expected texts= or text_embeds=")
            text = self.lazy_text(texts)
            embeds, masks = text.tokens, text.mask
        embeds = embeds.to(self.device).float()
        if embeds.ndim != 3 or embeds.shape[-1] != self.text_embed_dim:
            raise UsageError(
                f"got text_embeds of shape {tuple(embeds.shape)}; expected (B, L, "
                f"{self.text_embed_dim})"
            )
        if count is not None and len(embeds) != count:
            raise UsageError(f"got {len(embeds)} captions for {count} images; expected one each")
        mask = (embeds != 0).any(-1) if masks is None else masks.to(embeds.device).bool()
        return TextEmbedding(embeds, mask)

    def _checked(self, images: Tensor, size: int) -> Tensor:
        images = as_float(images).to(self.device)
        expected = f"(B, {self.settings.channels}, H, H) with H >= {size}"
        fits = images.ndim == 4 and images.shape[1] == self.settings.channels
        if not fits or images.shape[2] != images.shape[3] or images.shape[2] < size:
            raise UsageError(f"got images of shape {tuple(images.shape)}; expected {expected}")
        return images

    def _number(self, unet_number: int | None) -> int:
        if unet_number is None and len(self.unets) > 1:
            raise UsageError(f"got no unet_number; expected 1 to {len(self.unets)}")
        unet_number = 1 if unet_number is None else unet_number
        only = self.only_train_unet_number
        if only is not None and only != unet_number:
            raise UsageError(f"got unet_number={unet_number}; only U-Net {only} is to be trained")
        return unet_number

    def normalized(self, images: Tensor) -> Tensor:
        """Images of the input's range in [-1, 1]."""
        return images * 2 - 1 if self.settings.auto_normalize_img else images

    @contextmanager
    def alone_on_gpu(self, unet: Unet, alone: bool) -> Iterator[None]:
        """Keep the other networks off the GPU meanwhile."""
        device = self.device
        if not alone or device.type != "cuda":
            yield
            return
        for other in self.unets:
            other.to(device if other is unet else "cpu")
        try:
            yield
        finally:
            self.unets.to(device)
