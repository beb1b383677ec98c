"""Training examples of a draft, in the space of the coefficients of its basis.

The basis are the principal components of the training images with their transparency. A ground
enters an image linearly, x = image on white + transparency * (ground - white), so image and ground
are learned apart: an example is projected once, whatever grounds its captions ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calotype.config.diffusion import DraftTrainingConfig
from calotype.data.cache import Prepared
from calotype.errors import UsageError
from calotype.training.randomness import mixed_seed

_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class DraftExamples:
    """Training examples in the space of the coefficients.

    Args:
        image: coefficients of the images and their transparency, less the mean, (N, R).
        pooled: whitened text of all captions, (T, D); the first is the null caption.
        captions: which of them each example has, (N, V); `counts`, (N,), says how many count.
        counts: captions of each example.
        colours: coefficients of the ground that each of its captions asks for, (N, V, 3).
        fold: which fold leaves the example out, (N,).
    """

    image: Tensor
    pooled: Tensor
    captions: Tensor
    counts: Tensor
    colours: Tensor
    fold: Tensor

    def batch(
        self, config: DraftTrainingConfig, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Text (B, D), augmented, and coefficients (B, R + 3) of `batch_size` of `rows`."""
        size = config.batch_size
        chosen = rows[torch.randint(len(rows), (size,), generator=generator)]
        place = (torch.rand(size, generator=generator) * self.counts[chosen]).long()
        place[torch.rand(size, generator=generator) < config.plain_fraction] = 0
        text = self.pooled[self.captions[chosen, place]]
        spread = config.text_noise * torch.rand(size, 1, generator=generator)
        text = text + spread * torch.randn(text.shape, generator=generator)
        kept = torch.rand(text.shape, generator=generator) >= config.text_dropout
        text = text * kept / max(1 - config.text_dropout, 1e-6)
        return text, torch.cat((self.image[chosen], self.colours[chosen, place]), 1)


@dataclass(frozen=True)
class Basis:
    """Principal components of layers: orthonormal rows, (R, 4 * side²), and their mean."""

    components: Tensor
    mean: Tensor


def project_examples(
    examples: Iterable[Prepared],
    basis: Basis,
    *,
    variants: int,
    fold: Callable[[str], int],
    pool: Callable[[Sequence[str]], Tensor],
) -> DraftExamples:
    """Project the images of examples, and pool their captions.

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
        layers = layers_of(torch.from_numpy(example.image)[None])
        coefficients.append((layers - basis.mean) @ basis.components.T)
        texts = example.captions[:variants]
        own = [known.setdefault(caption.text.strip(), len(known)) for caption in texts] or [0]
        captions.append(torch.tensor(own))
        grounds = [_WHITE if c.background is None else c.background for c in texts] or [_WHITE]
        colours.append(ground_coefficients(torch.tensor(grounds), side=example.image.shape[0]))
        folds.append(fold(texts[0].text if texts else ""))
    if len(known) == 1:
        raise UsageError("got no captions to make drafts of; expected captions, or no draft")
    return DraftExamples(
        torch.cat(coefficients),
        pool(list(known)),
        nn.utils.rnn.pad_sequence(captions, batch_first=True),
        torch.tensor([len(own) for own in captions]),
        nn.utils.rnn.pad_sequence(colours, batch_first=True),
        torch.tensor(folds),
    )


def layers_of(pixels: Tensor) -> Tensor:
    """Images on white and their transparency.

    Args:
        pixels: straight-alpha RGBA, (B, side, side, 4) uint8.

    Returns:
        (B, 4 * side²): on white, in [-1, 1], and how much of the ground shows through, in [0, 1].
    """
    rgba = pixels.permute(0, 3, 1, 2).float() / 255
    alpha = rgba[:, 3:]
    on_white = 2 * (rgba[:, :3] * alpha + 1 - alpha) - 1
    return torch.cat((on_white, 1 - alpha), 1).flatten(1)


def ground_coefficients(colours: Tensor, *, side: int) -> Tensor:
    """What `Draft.image` takes for grounds, (..., 3): 0 is white. `colours` are 0..255."""
    return 2 * (colours / 255 - 1) * side


def fit_basis(pixels: Tensor, *, rank: int, seed: int) -> Basis:
    """Principal components of images on white with their transparency.

    Args:
        pixels: straight-alpha RGBA, (N, side, side, 4) uint8.
        rank: components.
        seed: of the randomized decomposition (Halko et al. 2011, arXiv:0909.4061).

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
    x = torch.cat([layers_of(part) for part in torch.split(pixels, 256)])
    mean = x.mean(0)
    x -= mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, 0, "draft basis"))
        components = torch.svd_lowrank(x, q=min(rank + 64, *x.shape), niter=4)[2]
    return Basis(components[:, :rank].T.contiguous(), mean)
