"""Training a byte-pair tokenizer on captions, in the files and with the numbers that GLIDE's has.

256 tokens of single bytes come first, so that any text can be said; then a token a merge; the end
mark, which no caption contains, is the last. Captions are lower-cased, as they are when they are
encoded. Reference: Radford et al. 2019, section 2.2; the training itself is `tokenizers`'.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from calotype.errors import UsageError
from calotype.storage.files import make_folder, write_file
from calotype.text.byte_pair import byte_alphabet
from calotype.text.tokenizer_folder import TOKENIZER_FILES

END_MARK = "<|endoftext|>"
SMALLEST_VOCABULARY = 258
"""256 bytes, one merge, and the end mark."""


def check_vocabulary(size: int) -> None:
    """Refuse a vocabulary without room for the bytes, a merge and the end mark.

    Raises:
        UsageError: it is too small.
    """
    if size < SMALLEST_VOCABULARY:
        raise UsageError(
            f"got a vocabulary of {size}; expected at least {SMALLEST_VOCABULARY}: 256 bytes, a "
            "merge and the end mark; captions want some thousands"
        )


def train_tokenizer(captions: Iterable[str], folder: Path, *, vocabulary: int) -> None:
    """Learn merges of captions, and write encoder.json and vocab.bpe into `folder`.

    The same captions, in whatever order, make the same files.

    Args:
        captions: as they come; those that come often count for more.
        folder: made if missing.
        vocabulary: how many tokens there are to be, the end mark included.

    Raises:
        UsageError: the vocabulary is too small, or larger than what the captions have.
        CalotypeError: the folder cannot be written to.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    check_vocabulary(vocabulary)
    alphabet = byte_alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1, initial_alphabet=alphabet, show_progress=False
    )
    cleaned = (text.encode("utf-8", "replace").decode("utf-8").lower() for text in captions)
    tokenizer.train_from_iterator(cleaned, trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    # One string a merge before tokenizers 0.20.
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in found]
    words = list(dict.fromkeys([*alphabet, *("".join(merge) for merge in merges)]))
    if len(words) + 1 < vocabulary:
        raise UsageError(
            f"got a vocabulary of {vocabulary:,}; expected at most {len(words) + 1:,}, all that "
            "these captions have: choose fewer, or take more captions"
        )
    numbers = {word: number for number, word in enumerate([*words, END_MARK])}
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    make_folder(folder)
    contents = (json.dumps(numbers), "\n".join(lines))
    for name, text in zip(TOKENIZER_FILES, contents, strict=True):
        write_file(folder / name, text.encode())
