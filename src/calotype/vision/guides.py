"""What pulls noisy images: a classifier towards a class, a CLIP towards captions.

Reference: Dhariwal & Nichol 2021, section 4, arXiv:2105.05233; with CLIP: Nichol et al. 2021,
section 2.3, arXiv:2112.10741.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.diffusion.gradient_guidance import LogLikelihood
from calotype.errors import UsageError
from calotype.vision.classifier import ClassifierModel
from calotype.vision.clip import ClipFile, ClipModel

_MOST_KNOWN = 4096  # captions whose embeddings are kept


@dataclass(frozen=True)
class ClassLikelihood:
    """log p(class | z) of each image's class, (B,) numbers, by a classifier's `logits`."""

    logits: Callable[[Tensor, Tensor], Tensor]
    wanted: Tensor

    def __call__(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """(B, 3, R, R), (B,) -> (B,)."""
        beliefs = self.logits(z.float(), logsnr).log_softmax(1)
        return beliefs.gather(1, self.wanted.to(z.device)[:, None])[:, 0]

    def rows(self, rows: slice) -> ClassLikelihood:
        """The same for some of the images."""
        return replace(self, wanted=self.wanted[rows])


@dataclass(frozen=True)
class CaptionLikelihood:
    """How well noisy images fit captions, embedded (B, E): cosines times CLIP's own scale."""

    embed_image: Callable[[Tensor, Tensor], Tensor]
    captions: Tensor
    scale: float

    def __call__(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """(B, 3, R, R), (B,) -> (B,)."""
        images = self.embed_image(z.float(), logsnr)
        return self.scale * (images * self.captions.to(images)).sum(1)

    def rows(self, rows: slice) -> CaptionLikelihood:
        """The same for some of the captions."""
        return replace(self, captions=self.captions[rows])


class ClassifierGuide:
    """Pulls images towards a class.

    Args:
        model: the classifier.
        wanted: the class of all images; None = each image's is chosen by its seed, all classes
            alike, as the paper samples.
        dtype: other than float32: the network's call is autocast.

    Raises:
        UsageError: it was not trained on that class.
    """

    def __init__(
        self, model: ClassifierModel, wanted: str | None, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.name = f"the classifier {model.name}"
        self.resolution = model.resolution
        self._model, self._wanted = model, wanted
        self._logits = _cast(model, dtype)
        if wanted is not None:
            model.numbers([wanted])

    def towards(self, wanted: str | None) -> ClassifierGuide:
        """The same classifier, its weights shared, for another class; errors as above."""
        other = copy.copy(self)
        other._wanted = wanted
        if wanted is not None:
            self._model.numbers([wanted])
        return other

    def log_likelihood(self, captions: Sequence[str], seeds: Sequence[int]) -> LogLikelihood:
        """Return log p(class | z), whatever the captions."""
        classes = self._model.classes
        wanted = [self._wanted or random_class(classes, seed) for seed in seeds]
        return ClassLikelihood(self._logits, self._model.numbers(wanted))


def random_class(classes: Sequence[str], seed: int) -> str:
    """The class of an image that none is asked for: the same for a seed, everywhere."""
    digest = hashlib.sha256(f"class {seed}".encode()).digest()
    return classes[int.from_bytes(digest) % len(classes)]


class ClipGuide:
    """Pulls every image towards its caption.

    Args:
        model: a CLIP that was trained on noisy images.
        dtype: other than float32: the image tower's call is autocast.

    Raises:
        UsageError: it never saw noise.
    """

    def __init__(self, model: ClipModel, *, dtype: torch.dtype = torch.float32) -> None:
        check_knows_noise(model.file)
        self.name = f"the CLIP {model.name}"
        self.resolution = model.file.clip.image.resolution
        self.clip = model
        self._scale = float(model.network.scale)
        self._embed_image = _cast(model.embed_image, dtype)
        self._known: dict[str, Tensor] = {}

    def log_likelihood(self, captions: Sequence[str], seeds: Sequence[int]) -> LogLikelihood:
        """How well noisy images fit these captions, each of which is embedded once."""
        new = [text for text in dict.fromkeys(captions) if text not in self._known]
        if len(self._known) + len(new) > _MOST_KNOWN:
            new, self._known = list(dict.fromkeys(captions)), {}
        if new:
            self._known |= zip(new, self.clip.embed_texts(new), strict=True)
        embedded = torch.stack([self._known[text] for text in captions])
        embedded = embedded.to(self.clip.network.log_scale.device)
        return CaptionLikelihood(self._embed_image, embedded, self._scale)


def check_knows_noise(file: ClipFile) -> None:
    """Refuse to be guided by a CLIP that was trained on clean images alone.

    Raises:
        UsageError: it was.
    """
    if file.clip.noise is None:
        raise UsageError(
            f"got the CLIP {file.name!r}, which never saw noise, as a guide; expected one that "
            "did: train a recipe such as clip-emoji-noised, or one with clip.noise"
        )


def _cast(call: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> LogLikelihood:
    if dtype == torch.float32:
        return call

    def cast(z: Tensor, logsnr: Tensor) -> Tensor:
        with torch.autocast(z.device.type, dtype=dtype):
            return call(z, logsnr)

    return cast
