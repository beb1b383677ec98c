"""What every text encoder offers (`TextEncoder`), and what all of them do to captions.

Captions may be anything a user can paste: megabytes, NUL bytes, lone surrogates. They are cut
before they are tokenised, so that their cost does not grow with their length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from calotype.conditioning import Text, TextEmbedding, TokenIds
from calotype.errors import ConfigError, UsageError

CHARACTERS_PER_TOKEN = 64
"""Captions are cut to this many characters for each token of the maximum: in any language a
token covers far fewer on average, so that the cut falls behind the last token that is kept."""

CAPTIONS_AT_ONCE = 64
_MOST_RECENT = 16  # captions whose states are kept: 4 MB each of the largest encoder


class _ReadsCaptions(Protocol):
    @property
    def max_tokens(self) -> int:
        """Longest sequence L; what a caption has beyond it is left out."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the numbers: weights, tokenizer, length, dtype."""


class TextEncoder(_ReadsCaptions, Protocol):
    """A frozen map from captions to token states.

    An empty caption, or one that holds nothing but white space, is the null caption: its mask is
    all False and its tokens are zero. The states of a caption do not depend on its batch (to
    float32 rounding).
    """

    @property
    def embed_dim(self) -> int:
        """Width D of the token states."""

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Token states (B, L, D) float32 and mask (B, L), padded to the longest caption."""


@runtime_checkable
class Tokenizer(_ReadsCaptions, Protocol):
    """A map from captions to token ids, for networks with a text tower of their own.

    A protocol apart from `TextEncoder`, so that a type checker sees ids on their way to what
    takes states: pooling, whitening, and the store, whose float16 would spoil most of them. Ids
    are made as they are needed, which costs next to nothing.
    """

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are."""

    def __call__(self, captions: Sequence[str]) -> TokenIds:
        """Ids and mask (B, L), padded to the longest caption."""


def check_encoder(encoder: TextEncoder | Tokenizer | None, spec: str) -> TextEncoder:
    """The encoder, where states are wanted.

    Raises:
        UsageError: it is a tokenizer, or none.
    """
    if encoder is None or isinstance(encoder, Tokenizer):
        what = "makes token ids" if encoder is not None else "embeds nothing"
        raise UsageError(
            f"got encoder {spec!r}, which {what}; expected one that makes states, e.g. minilm"
        )
    return encoder


def misfit(encoder: TextEncoder | Tokenizer | None, text_dim: int, *, ids: bool) -> str | None:
    """What is wrong, for people, where an encoder does not make what a network takes."""
    if isinstance(encoder, Tokenizer):
        made = "token ids"
    else:
        made = "nothing" if encoder is None else f"states of {encoder.embed_dim} channels"
    wanted = "token ids" if ids else f"states of {text_dim} channels"
    return None if made == wanted else f"got a text encoder that makes {made}; expected {wanted}"


def clean_captions(captions: Sequence[str], max_tokens: int) -> list[str]:
    """Strip, cut and make encodable as UTF-8; lone surrogates become question marks.

    Raises:
        UsageError: `captions` is one string, is empty, or holds something that is not a string.
    """
    most = max_tokens * CHARACTERS_PER_TOKEN
    heads = (caption.strip()[:most] for caption in check_captions(captions))
    return [head.encode("utf-8", errors="replace").decode("utf-8") for head in heads]


def check_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """The captions, if they are what they should be.

    Raises:
        UsageError: `captions` is one string, is empty, or holds something that is not a string.
    """
    if isinstance(captions, str):
        raise UsageError("got one string as captions; expected a list of strings: [caption]")
    if len(captions) == 0:
        raise UsageError("got no captions; expected at least one: '' is the null caption")
    for caption in captions:
        if not isinstance(caption, str):
            raise UsageError(f"got a caption of type {type(caption).__name__}; expected a string")
    return tuple(captions)


def encode_once(encoder: TextEncoder | Tokenizer, captions: Sequence[str]) -> Text:
    """Encode captions, each once however often it comes, some at a time.

    On the CPU until a stage takes them: null captions are there wherever others are made.
    """
    places = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
    unique = list(places)
    whole = encoder(unique[:CAPTIONS_AT_ONCE]).to("cpu")
    for start in range(CAPTIONS_AT_ONCE, len(unique), CAPTIONS_AT_ONCE):
        whole = whole.cat(whole, encoder(unique[start : start + CAPTIONS_AT_ONCE]).to("cpu"))
    return whole[torch.tensor([places[caption] for caption in captions])]


def encode_recent(
    encoder: TextEncoder | Tokenizer, captions: Sequence[str], recent: dict[str, Text]
) -> Text:
    """As `encode_once`; the states of captions that come alone are kept in `recent`.

    A server makes images one by one, often of one caption, and large encoders take seconds.
    """
    if len(captions) != 1:
        return encode_once(encoder, captions)
    caption = captions[0]
    if caption not in recent:
        text = encode_once(encoder, captions)
        while len(recent) >= _MOST_RECENT:
            del recent[next(iter(recent))]
        recent[caption] = text
    return recent[caption]


def pad_tokens(ids: Sequence[Sequence[int]], *, pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids (B, L) int64 and mask (B, L) bool, padded on the right to the longest."""
    longest = max(1, *(len(row) for row in ids))
    padded = torch.full((len(ids), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(ids), longest), dtype=torch.bool)
    for index, row in enumerate(ids):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[index, : len(row)] = True
    return padded, mask


def embed_ids(
    ids: Sequence[Sequence[int]], embed_dim: int, encode: Callable[[Tensor, Tensor], Tensor]
) -> TextEmbedding:
    """Token states of captions given as token ids; a caption without any is the null caption.

    Args:
        ids: of each caption, special tokens included.
        embed_dim: width D of the states.
        encode: ids (N, L) int64 and mask (N, L), True = token, of the captions that have ids, to
            states (N, L, D).

    Returns:
        (B, L, D) float32 on the device of the states; padding is zero.
    """
    rows = [index for index, row in enumerate(ids) if len(row) > 0]
    if not rows:
        return TextEmbedding.null(len(ids), embed_dim)
    padded, mask = pad_tokens([ids[row] for row in rows])
    states = encode(padded, mask)
    index, mask = torch.tensor(rows, device=states.device), mask.to(states.device)
    tokens = states.new_zeros((len(ids), *states.shape[1:]), dtype=torch.float32)
    tokens[index] = states.float().masked_fill(~mask[..., None], 0.0)
    full_mask = mask.new_zeros((len(ids), mask.shape[1]))
    full_mask[index] = mask
    return TextEmbedding(tokens, full_mask)


def check_max_tokens(max_tokens: int, *, lowest: int, highest: int | None, encoder: str) -> int:
    """The length if the encoder can work with it.

    Raises:
        ConfigError: out of [lowest, highest].
    """
    limit = "any number" if highest is None else str(highest)
    if max_tokens < lowest or (highest is not None and max_tokens > highest):
        raise ConfigError(
            f"max_tokens of {encoder}: got {max_tokens}, expected {lowest} to {limit}; change it"
        )
    return max_tokens


def check_dtype(dtype: torch.dtype, encoder: str) -> None:
    """Refuse what encoders cannot compute in.

    Raises:
        ConfigError: neither float32 nor bfloat16.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ConfigError(
            f"dtype of {encoder}: got {dtype}, expected float32 or bfloat16; change it"
        )


def digest(parts: Iterable[str]) -> str:
    """SHA-256 (hex) of some strings, each with its length, so that no two lists share one."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode()
        sha.update(f"{len(data)}:".encode())
        sha.update(data)
    return sha.hexdigest()
