"""Training examples of a draft, in the space of the coefficients of its basis.

The basis are the principal components of the training images, on white and on random grounds. A
ground enters an image linearly, x = alpha * image + (1 - alpha) * ground, so image and ground are
projected once, apart, and any caption's image is a sum of four vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calotype.config import DraftTrainingConfig
from calotype.data.cache import Prepared
from calotype.errors import UsageError
from calotype.training.randomness import mixed_seed

_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class DraftExamples:
    """Training examples in the space of the coefficients.

    Args:
        image: coefficients of the images on black, less the mean image, (N, R).
        ground: coefficients of a red, a green and a blue ground of 1 behind them, (N, 3, R).
        pooled: whitened text of all captions, (T, D); the first is the null caption.
        captions: which of them each example has, (N, V); `counts`, (N,), says how many count.
        counts: captions of each example.
        colours: ground that each of its captions asks for, (N, V, 3) in [0, 1].
        fold: which fold leaves the example out, (N,).
    """

    image: Tensor
    ground: Tensor
    pooled: Tensor
    captions: Tensor
    counts: Tensor
    colours: Tensor
    fold: Tensor

    def batch(
        self, config: DraftTrainingConfig, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Text (B, D), augmented, and coefficients (B, R) of `batch_size` examples of `rows`."""
        size = config.batch_size
        chosen = rows[torch.randint(len(rows), (size,), generator=generator)]
        place = (torch.rand(size, generator=generator) * self.counts[chosen]).long()
        place[torch.rand(size, generator=generator) < config.plain_fraction] = 0
        text = self.pooled[self.captions[chosen, place]]
        spread = config.text_noise * torch.rand(size, 1, generator=generator)
        text = text + spread * torch.randn(text.shape, generator=generator)
        kept = torch.rand(text.shape, generator=generator) >= config.text_dropout
        text = text * kept / max(1 - config.text_dropout, 1e-6)
        colours = self.colours[chosen, place]
        return text, self.image[chosen] + torch.einsum("bc,bcr->br", colours, self.ground[chosen])


@dataclass(frozen=True)
class Basis:
    """Principal components of images: orthonormal rows, (R, 3 * side²), and the mean image."""

    basis: Tensor
    mean: Tensor


def project_examples(
    examples: Iterable[Prepared],
    basis: Basis,
    *,
    variants: int,
    fold: Callable[[str], int],
    pool: Callable[[Sequence[str]], Tensor],
) -> DraftExamples:
    """Project images and grounds of examples, and pool their captions.

    Args:
        examples: at the basis's resolution.
        basis: of the draft.
        variants: how many of an example's captions are used.
        fold: which fold leaves out the examples with this first caption.
        pool: whitened text (T, D) of captions, the null caption first.

    Raises:
        UsageError: no example has a caption.
    """
    known: dict[str, int] = {"": 0}
    coefficients, captions, colours, folds = [], [], [], []
    for example in examples:
        layers = image_and_grounds(torch.from_numpy(example.image)[None])[0]
        layers[0] -= basis.mean
        coefficients.append(layers @ basis.basis.T)
        texts = example.captions[:variants]
        own = [known.setdefault(caption.text.strip(), len(known)) for caption in texts] or [0]
        captions.append(torch.tensor(own))
        grounds = [_WHITE if c.background is None else c.background for c in texts] or [_WHITE]
        colours.append(torch.tensor(grounds) / 255)
        folds.append(fold(texts[0].text if texts else ""))
    if len(known) == 1:
        raise UsageError("got no captions to make drafts of; expected captions, or no draft")
    projected = torch.stack(coefficients)
    return DraftExamples(
        projected[:, 0].contiguous(),
        projected[:, 1:].contiguous(),
        pool(list(known)),
        nn.utils.rnn.pad_sequence(captions, batch_first=True),
        torch.tensor([len(own) for own in captions]),
        nn.utils.rnn.pad_sequence(colours, batch_first=True),
        torch.tensor(folds),
    )


def image_and_grounds(pixels: Tensor) -> Tensor:
    """What an image on any plain ground is a sum of.

    Args:
        pixels: straight-alpha RGBA, (B, side, side, 4) uint8.

    Returns:
        (B, 4, 3 * side²): the image on black, in [-1, 1], and what a red, a green and a blue ground
        of 1 would add to it.
    """
    rgba = pixels.permute(0, 3, 1, 2).float() / 255
    alpha = rgba[:, 3:]
    image = (2 * rgba[:, :3] * alpha - 1).flatten(1)
    behind = 2 * (1 - alpha).flatten(1)
    grounds = torch.zeros(len(pixels), 3, 3, behind.shape[1])
    grounds[:, range(3), range(3)] = behind[:, None]
    return torch.cat((image[:, None], grounds.flatten(2)), 1)


def fit_basis(pixels: Tensor, *, rank: int, seed: int) -> Basis:
    """Principal components of images, each once on white and once on a random ground.

    Args:
        pixels: straight-alpha RGBA, (N, side, side, 4) uint8.
        rank: components.
        seed: of the grounds, and of the randomized decomposition (Halko et al. 2011,
            arXiv:0909.4061).

    Raises:
        UsageError: there are fewer images than components, or all are alike.
    """
    if len(pixels) < rank:
        raise UsageError(
            f"got {len(pixels)} images for a draft of rank {rank}; expected at least {rank} "
            "images, or a smaller stage.network.draft.rank"
        )
    if bool((pixels == pixels[:1]).all()):
        raise UsageError(
            f"got {len(pixels)} images that are all alike; expected different images to make a "
            "draft's basis of"
        )
    generator = torch.Generator().manual_seed(mixed_seed(seed, 0, "draft grounds"))
    colours = torch.ones(2, len(pixels), 3)
    colours[1] = torch.rand(len(pixels), 3, generator=generator)
    images = []
    for chosen in colours:
        for start in range(0, len(pixels), 256):
            layers = image_and_grounds(pixels[start : start + 256])
            grounds = torch.einsum("bc,bcp->bp", chosen[start : start + 256], layers[:, 1:])
            images.append(layers[:, 0] + grounds)
    x = torch.cat(images)
    mean = x.mean(0)
    x -= mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, 0, "draft basis"))
        components = torch.svd_lowrank(x, q=min(rank + 64, *x.shape), niter=4)[2]
    return Basis(components[:, :rank].T.contiguous(), mean)
