"""An edit of one stage, as data: where it starts, what it changes, which pixels it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion import Denoiser, DenoiserTransform, Estimate
from calotype.diffusion.gradient_guidance import GradientGuidance
from calotype.errors import UsageError

KNOWN_CHANNELS = 4
"""Of the known image times its mask, and of the mask: 1 = known."""


_FAINT = 0.005  # of the weights of known pixels: fewer near it do not move a pixel at all


@dataclass(frozen=True)
class KnownPixels:
    """The pixels that an edit keeps.

    Args:
        image: clean images, (B, 3, H, W) in [-1, 1].
        mask: True = keep the pixel, (B, 1, H, W) bool.
        seamless: what an estimate misses at known pixels is made good within two pixels of them,
            too, so that what is made meets what is kept.

    Raises:
        UsageError: the shapes or types do not fit.
    """

    image: Tensor
    mask: Tensor
    seamless: bool = True

    def __post_init__(self) -> None:
        image, mask = self.image, self.mask
        expected = (image.shape[0], 1, *image.shape[2:])
        if image.ndim != 4 or tuple(mask.shape) != expected or mask.dtype != torch.bool:
            raise UsageError(
                f"got an image {tuple(image.shape)} and a mask {tuple(mask.shape)} of "
                f"{mask.dtype}; expected (B, 3, H, W) and (B, 1, H, W) of bool"
            )

    def keep(self, denoise: Denoiser) -> Denoiser:
        """The denoiser that puts them into every estimate."""
        near = _near(self.mask.float()) + _FAINT if self.seamless else None

        def keeping(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoise(z, logsnr)
            x_hat = estimate.x_hat
            image, mask = self.image.to(x_hat), self.mask.to(x_hat.device)
            if near is not None:
                x_hat = x_hat + _near((image - x_hat) * mask) / near.to(x_hat)
            return replace(estimate, x_hat=torch.where(mask, image, x_hat))

        return keeping

    def channels(self) -> Tensor:
        """What a network that knows of masks is given: image times mask, mask; (B, 4, H, W).

        Reference: Nichol et al. 2021, section 2.4, arXiv:2112.10741.
        """
        mask = self.mask.float()
        return torch.cat((self.image.float() * mask, mask), dim=1)

    def __getitem__(self, rows: slice) -> KnownPixels:
        return replace(self, image=self.image[rows], mask=self.mask[rows])


@dataclass(frozen=True)
class Inversion:
    """An edit's start keeps its own noise: what sampling it by DDIM would have begun with.

    Args:
        captions: what the images to start from show, one an image; "" where nobody knows.
        refine: corrections of each step; see `inversion_steps`.
    """

    captions: tuple[str, ...]
    refine: int = 0


def _near(x: Tensor) -> Tensor:
    """Means of what lies within two pixels, nearer ones counting more; (B, C, H, W)."""
    x = F.pad(x, (2, 2, 2, 2))
    for axis in (2, 2, 3, 3):  # sums of three, which are faster than pooling
        length = x.shape[axis] - 2
        x = x.narrow(axis, 0, length) + x.narrow(axis, 1, length) + x.narrow(axis, 2, length)
    return x / 81


@dataclass(frozen=True)
class StageEdit:
    """An edit of one stage, as data.

    Args:
        start: clean images to start from, (B, 3, H, W) in [-1, 1]; None = as the sampling
            settings say: pure noise, or the draft.
        start_time: how noisy the start is made, in (0, 1].
        inversion: find the noise of the start itself; None = random noise.
        noised: the start with its own noise, (B, 3, H, W) at the first level, once that is found.
        transform: applied to the guided and thresholded denoiser; one that holds tensors of a
            batch has a method `rows(slice)`, the same for some of its images.
        guidance: what pulls the result, but for known pixels.
        known: pixels to keep; what they are has the last word in every estimate.
        blind: withhold them from the draft and the network, which may follow them instead of the
            caption (Nichol et al. 2021, appendix E, arXiv:2112.10741).
        regrid: the levels to sample over, from those of the sampling settings (N+1,), e.g. to
            pass some of them again; None = as they are.
    """

    start: Tensor | None = None
    start_time: float = 1.0
    inversion: Inversion | None = None
    noised: Tensor | None = None
    transform: DenoiserTransform | None = None
    guidance: tuple[GradientGuidance, ...] = ()
    known: KnownPixels | None = None
    blind: bool = False
    regrid: Callable[[Tensor], Tensor] | None = None

    def rows(self, rows: slice) -> StageEdit:
        """The edit of some images of a batch."""
        start = None if self.start is None else self.start[rows]
        noised = None if self.noised is None else self.noised[rows]
        known = None if self.known is None else self.known[rows]
        cut = getattr(self.transform, "rows", None)
        transform = self.transform if cut is None else cut(rows)
        guidance = tuple(one.rows(rows) for one in self.guidance)
        part = replace(self, start=start, noised=noised, transform=transform, known=known)
        part = replace(part, guidance=guidance)
        if self.inversion is None:
            return part
        captions = self.inversion.captions[rows]
        return replace(part, inversion=replace(self.inversion, captions=captions))

    def check(
        self, config: StageConfig, sampling: SamplingConfig, shape: tuple[int, int, int, int]
    ) -> None:
        """Refuse what the stage of `config` cannot make of images of a shape (B, 3, H, W)."""
        if not 0 < self.start_time <= 1:
            raise UsageError(f"got start_time={self.start_time}; expected a number in (0, 1]")
        if self.start is not None and tuple(self.start.shape) != shape:
            raise UsageError(
                f"got a start of shape {tuple(self.start.shape)} for the {config.resolution} "
                f"stage; expected {shape}"
            )
        if self.inversion is not None:
            self._check_inversion(self.inversion, sampling, count=shape[0])

    def _check_inversion(
        self, inversion: Inversion, sampling: SamplingConfig, *, count: int
    ) -> None:
        if self.start is None or self.regrid is not None:
            raise UsageError("got an inversion; expected a start beside it, and no regrid")
        if len(inversion.captions) != count:
            raise UsageError(
                f"got {len(inversion.captions)} captions of sources for {count} images; expected "
                "as many"
            )
        if sampling.sampler != "ddim":
            raise UsageError(
                f"got the sampler {sampling.sampler!r} from an image's own noise, which is that of "
                "ddim; expected ddim"
            )

    def applied(self, denoise: Denoiser, threshold: DenoiserTransform) -> Denoiser:
        """A stage's guided and thresholded denoiser as the edit has it.

        What a gradient moved is thresholded again: no true mean of images lies outside, and where
        alpha is all but 0 an error of the gradient is magnified by its inverse.
        """
        if self.transform is not None:
            denoise = self.transform(denoise)
        for one in self.guidance:
            denoise = replace(one, known=None if self.known is None else self.known.mask)(denoise)
        if any(one.form == "score" for one in self.guidance):
            denoise = threshold(denoise)
        return denoise if self.known is None else self.known.keep(denoise)

    @property
    def extra(self) -> Tensor | None:
        """What networks that know of masks are given, (B, 4, H, W); None = nothing is known."""
        return None if self.known is None or self.blind else self.known.channels()
