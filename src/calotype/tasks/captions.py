"""Captions on their way to the network: embedded once ahead, looked up at each step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from calotype.conditioning import Text, TextEmbedding, token_states
from calotype.config.data import DataConfig
from calotype.data.source import AllCaptions, ExampleSource
from calotype.errors import CalotypeError, ConfigError
from calotype.tasks.tokenizers import TokenTower, build_tokenizer
from calotype.text import TextEncoder, build_text_encoder
from calotype.text.encoder import check_encoder, misfit
from calotype.text.layout import StoreCard, StoreLayout, store_cards
from calotype.text.store import CaptionStore, Encode, embed_captions
from calotype.training.preparation import Preparation

TextLookup = Callable[[Sequence[str]], Text]
_CHUNK = 1024


def build_encoder(spec: str, width: int) -> TextEncoder:
    """The encoder of a recipe, for a network that takes states of some width.

    Raises:
        ConfigError: its token states are not of this width.
    """
    encoder = build_text_encoder(spec)
    problem = misfit(encoder, width, ids=False)
    if problem is not None:
        raise ConfigError(
            f"got text_encoder={spec!r} for this network: {problem}; change the recipe"
        )
    return check_encoder(encoder, spec)


@dataclass(frozen=True)
class WantedCaptions:
    """The captions that a task may meet, and what it reads of them.

    Args:
        sources: of examples.
        data: how many captions of each, and what to do about missing ones.
        spec: of the text encoder.
        reader: of what it makes: a tower that takes ids, or the width of token states.
        more: captions beside those of the data.
    """

    sources: Sequence[ExampleSource]
    data: DataConfig
    spec: str
    reader: TokenTower | int
    more: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(AllCaptions(self.sources, self.data.caption_variants, more=self.more))


def embedded_captions(preparation: Preparation, wanted: WantedCaptions) -> TextLookup:
    """Embed what is not stored yet; of several processes rank 0 does. Ids need no store.

    Raises:
        ConfigError: encoder and width do not fit.
        CalotypeError: a process does not see what rank 0 has stored.
        Stopped: somebody asked for the end.
    """
    spec = wanted.spec
    if not isinstance(wanted.reader, int):
        return build_tokenizer(spec, wanted.reader)
    group, beside = preparation.group, preparation.beside
    stored = stored_captions(beside, wanted) if group.is_rank_zero else None
    if group.broadcast(stored is not None):  # what rank 0 sees: it may write there next
        stored = stored_captions(beside, wanted) if stored is None else stored
    else:
        encoded = functools.partial(build_encoder, spec, wanted.reader)
        preparation.on_rank_zero(lambda: _embed(preparation, wanted, encoded()))
        if group.is_rank_zero:
            return preparation.stores[spec].__getitem__
        stored = stored_captions(preparation.embeddings(spec), wanted)
    if stored is None:
        raise CalotypeError(
            f"process {group.rank} does not see the captions that rank 0 has embedded in "
            f"{preparation.embeddings(spec)}; put --data and --out where all machines see them"
        )
    preparation.stores[spec] = stored
    return stored.__getitem__


def _embed(preparation: Preparation, wanted: WantedCaptions, encoder: TextEncoder) -> None:
    """Embed the captions that are not stored yet; the store is `preparation.stores[spec]`."""
    preparation.stores[wanted.spec] = embed_ahead(
        encoder,
        wanted,
        folder=preparation.embeddings(wanted.spec),
        missing=wanted.data.missing_captions,
        progress=preparation.progress("embedding captions"),
    )


def embed_ahead(
    encoder: TextEncoder,
    captions: Iterable[str],
    *,
    folder: Path,
    missing: Literal["compute", "refuse"] = "compute",
    progress: Callable[[int, int], None] | None = None,
) -> CaptionStore:
    """Embed all captions into the store in `folder`, or open what is there.

    Args:
        encoder: of the recipe.
        captions: every caption that training may meet.
        folder: of the store.
        missing: "refuse" embeds nothing: a caption that is not stored is an error when met.
        progress: gets (done, total).
    """
    captions = [] if missing == "refuse" else captions
    fitting = [c for c in _cards(folder) if c.fingerprint == encoder.fingerprint]
    layout = StoreLayout(precision=fitting[0].precision) if fitting else StoreLayout()
    store = embed_captions(encoder, captions, folder=folder, progress=progress, layout=layout)
    if missing == "compute":
        store.encoder = encoder
    return store


def stored_captions(folder: Path, wanted: WantedCaptions) -> CaptionStore | None:
    """The store that `calotype data embed` made in `folder`, if it is all that is needed.

    The encoder is not loaded; with "compute" it is when a caption turns up that is not there.
    None if no store is of the encoder or, with "compute", it lacks some of the captions.
    """
    for card in _cards(folder):
        if card.spec == wanted.spec and card.embed_dim == wanted.reader:
            store = CaptionStore(card)
            if wanted.data.missing_captions == "refuse":
                return store
            if store.has_all(wanted):
                store.encoder = deferred_encoder(card)
                return store
    return None


def _cards(folder: Path) -> list[StoreCard]:
    """The stores in a folder, the exact ones first."""
    return sorted(store_cards(folder), key=lambda card: card.precision != "float16")


def deferred_encoder(card: StoreCard) -> Encode:
    """The encoder that made a store, loaded when it is first called; another one is refused."""

    @functools.cache
    def loaded() -> TextEncoder:
        encoder = check_encoder(build_text_encoder(card.spec), card.spec)
        if encoder.fingerprint != card.fingerprint:
            raise CalotypeError(
                f"the encoder {card.spec!r} is not the one that made {card.folder}; "
                "embed the captions again, or move that folder away"
            )
        return encoder

    return lambda captions: loaded()(captions)


def caption_statistics(lookup: TextLookup, captions: Iterable[str]) -> tuple[Tensor, Tensor] | None:
    """Mean (D,) and covariance (D, D), float64, of captions' mean states, for whitened pooling.

    Empty captions do not count; None when there are fewer than two others.
    """
    distinct = [caption for caption in dict.fromkeys(captions) if caption.strip()]
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for start in range(0, len(distinct), _CHUNK):
        pooled = _mean_states(token_states(lookup(distinct[start : start + _CHUNK])))
        count += len(pooled)
        total = total + pooled.sum(0)
        squares = squares + pooled.T @ pooled
    if count < 2:
        return None
    mean = total / count
    return mean, squares / count - torch.outer(mean, mean)


def _mean_states(text: TextEmbedding) -> Tensor:
    weights = text.mask.double()[..., None]
    pooled = (text.tokens.double() * weights).sum(1) / weights.sum(1).clamp_min(1.0)
    return pooled[text.mask.any(1)]
