"""A byte-pair tokenizer made of the captions of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from calotype.data.account import check_account, take_account
from calotype.data.columns import Selection
from calotype.data.open import open_part, parts
from calotype.data.source import some_captions
from calotype.errors import UsageError
from calotype.storage.files import new_folder
from calotype.text.glide import CaptionTokens
from calotype.text.tokenizer_folder import tokenizer_sha256
from calotype.text.train_byte_pair import check_vocabulary, train_tokenizer

_SHOWN = 1000  # examples between two words on how far it is
_LOOKED_AT = 1 << 17  # captions whose length is told, about
_LONGEST = 100_000


@dataclass(frozen=True)
class TokenizerReport:
    """What a tokenizer was made of.

    Args:
        examples: images whose captions were read.
        captions: of them all, as often as they come.
        longest: tokens of the longest caption, of some from all over the data where there are very
            many: what a network's context has to hold.
        sha256: of the tokenizer.
    """

    examples: int
    captions: int
    longest: int
    sha256: str


def make_tokenizer(
    path: Path,
    out: Path,
    *,
    vocabulary: int,
    selection: Selection,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokenizerReport:
    """Train a tokenizer on the captions at `path`, and write it into `out`.

    Args:
        path: anything that `open_source` takes.
        out: folder to write, new or empty.
        vocabulary: how many tokens there are to be.
        selection: whose captions; tokens of examples that are set aside would never be trained.
        progress: gets (done, total) examples.

    Raises:
        UsageError: the vocabulary does not fit, there are no captions, or `out` holds something.
        CalotypeError: the folder cannot be written to.
    """
    check_vocabulary(vocabulary)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"got --out {out}, which is there; expected a new folder: choose another")
    # Images in several sizes have the same captions.
    source = open_part(path, parts(path)[0], selection)
    account = take_account(source)
    check_account(account)
    if account.without_caption == account.looked_at:
        raise UsageError(f"got no captions in {path}; expected some: check the data")
    count = 0

    def captions() -> Iterator[str]:
        """One by one: millions are never held."""
        nonlocal count
        for index in range(len(source)):
            for caption in source.captions(index)[: selection.variants]:
                if caption.text.strip():
                    count += 1
                    yield caption.text
            if index % _SHOWN == 0 or index + 1 == len(source):
                progress(index + 1, len(source))

    with new_folder(out.resolve()) as fresh, source.report.apart():
        train_tokenizer(captions(), fresh, vocabulary=vocabulary)
        tokens = CaptionTokens(str(fresh), max_tokens=_LONGEST)
        some = some_captions(source, selection.variants, most=_LOOKED_AT)
        longest = max(int(tokens([text]).mask.sum()) for text in some)
        sha256 = tokenizer_sha256(fresh)
    return TokenizerReport(len(source), count, longest, sha256)
