"""An edit of one stage, as data: where it starts, what it changes, which pixels it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.diffusion import Denoiser, DenoiserTransform, Estimate
from calotype.errors import UsageError

KNOWN_CHANNELS = 4
"""Of the known image times its mask, and of the mask: 1 = known."""


@dataclass(frozen=True)
class KnownPixels:
    """The pixels that an edit keeps.

    Args:
        image: clean images, (B, 3, H, W) in [-1, 1].
        mask: True = keep the pixel, (B, 1, H, W) bool.

    Raises:
        UsageError: the shapes or types do not fit.
    """

    image: Tensor
    mask: Tensor

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

        def keeping(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoise(z, logsnr)
            image, mask = self.image.to(estimate.x_hat), self.mask.to(estimate.x_hat.device)
            return replace(estimate, x_hat=torch.where(mask, image, estimate.x_hat))

        return keeping

    def channels(self) -> Tensor:
        """What a network that knows of masks is given: image times mask, mask; (B, 4, H, W).

        Reference: Nichol et al. 2021, section 2.4, arXiv:2112.10741.
        """
        mask = self.mask.float()
        return torch.cat((self.image.float() * mask, mask), dim=1)

    def __getitem__(self, rows: slice) -> KnownPixels:
        return KnownPixels(self.image[rows], self.mask[rows])


@dataclass(frozen=True)
class StageEdit:
    """An edit of one stage, as data.

    Args:
        start: clean images to start from, (B, 3, H, W) in [-1, 1]; None = as the sampling
            settings say: pure noise, or the draft.
        start_time: how noisy the start is made, in (0, 1].
        transform: applied to the guided and thresholded denoiser; one that holds tensors of a
            batch has a method `rows(slice)`, the same for some of its images.
        known: pixels to keep; what they are has the last word in every estimate.
        blind: withhold them from the network. One that was trained to see them may follow them
            instead of the caption (Nichol et al. 2021, appendix E, arXiv:2112.10741).
        regrid: the levels to sample over, from those of the sampling settings (N+1,), e.g. to
            pass some of them again; None = as they are.
    """

    start: Tensor | None = None
    start_time: float = 1.0
    transform: DenoiserTransform | None = None
    known: KnownPixels | None = None
    blind: bool = False
    regrid: Callable[[Tensor], Tensor] | None = None

    def check(self, resolution: int, shape: tuple[int, ...]) -> None:
        """Refuse an edit that does not fit a stage and the images it samples, (B, 3, H, W)."""
        if not 0 < self.start_time <= 1:
            raise UsageError(f"got start_time={self.start_time}; expected a number in (0, 1]")
        if self.start is not None and tuple(self.start.shape) != shape:
            raise UsageError(
                f"got a start of shape {tuple(self.start.shape)} for the {resolution} stage; "
                f"expected {shape}"
            )

    def rows(self, rows: slice) -> StageEdit:
        """The edit of some images of a batch."""
        start = None if self.start is None else self.start[rows]
        known = None if self.known is None else self.known[rows]
        cut = getattr(self.transform, "rows", None)
        transform = self.transform if cut is None else cut(rows)
        return replace(self, start=start, transform=transform, known=known)

    @property
    def extra(self) -> Tensor | None:
        """What networks that know of masks are given, (B, 4, H, W); None = nothing is known."""
        return None if self.known is None or self.blind else self.known.channels()
