"""Drafts that never saw a part of the captions, for the training rows of a base.

A base that is trained on drafts of captions which the draft knows by heart trusts it blindly. So
further drafts, the folds, are trained without one part of the captions each, and a fraction of the
base's rows is conditioned on the draft that never saw their caption.
"""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn

from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding
from calotype.config.diffusion import DiffusionTraining
from calotype.networks import UNet
from calotype.networks.draft import CoefficientRegression, Draft
from calotype.networks.text import TextConditioner
from calotype.training.randomness import mixed_seed


def draft_of(stage: Stage) -> Draft | None:
    """The draft of a stage's network, if it has one."""
    return stage.network.draft if isinstance(stage.network, UNet) else None


def text_conditioner(stage: Stage) -> TextConditioner:
    """What pools the captions of a network with a draft."""
    assert isinstance(stage.network, UNet) and stage.network.condition.text is not None
    return stage.network.condition.text


def freeze_draft(network: nn.Module) -> None:
    """Leave the draft, if the network has one, as its own training made it."""
    if isinstance(network, UNet) and network.draft is not None:
        network.draft.requires_grad_(False)


def fold_of(caption: str, folds: int) -> int:
    """Which fold leaves out the examples whose first caption this is, 0 to `folds` - 1."""
    digest = hashlib.blake2b(caption.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % folds


class DraftFolds(nn.Module):
    """A trained draft and its folds, which are a fraction of a base's training examples.

    Args:
        pooling: of the captions, as the draft was trained with.
        draft: has seen every caption.
        regressions: one a fold, like that of `draft`, to coefficients of the same basis.
    """

    def __init__(self, pooling: nn.Module, draft: Draft, regressions: nn.ModuleList) -> None:
        super().__init__()
        self.pooling = pooling
        self.draft = draft
        self.regressions = regressions

    def __len__(self) -> int:
        return len(self.regressions)

    @torch.no_grad()
    def forward(self, text: TextEmbedding, fold: Tensor, known: Tensor | None = None) -> Tensor:
        """The drafts of B captions, (B, 3, side, side), each by its `fold`, (B,); -1 = `draft`.

        `known` are pixels of the images, (B, 4, H, W): see `Conditioning.extra`.
        """
        pooled = self.pooling(text)
        regressions = (self.draft.regression, *self.regressions)
        coefficients = torch.stack([regression(pooled) for regression in regressions])
        rows = torch.arange(len(pooled), device=pooled.device)
        return self.draft.image(coefficients[fold.to(pooled.device) + 1, rows], known)


def new_folds(stage: Stage, config: DiffusionTraining) -> DraftFolds:
    """Folds of random weights, a function of the seed.

    Draft and pooling are copies: the stage's own may become shards on several processes.
    """
    draft, conditioner = draft_of(stage), text_conditioner(stage)
    assert draft is not None and config.draft is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(config.seed, 0, "draft folds"))
        made = [
            CoefficientRegression(draft.config, config.stage.network.text_dim)
            for _ in range(config.draft.folds)
        ]
    regressions = nn.ModuleList(made).to(stage.device)
    pooling, copied = copy.deepcopy(conditioner.pooling), copy.deepcopy(draft)
    return DraftFolds(pooling, copied, regressions).requires_grad_(False)
