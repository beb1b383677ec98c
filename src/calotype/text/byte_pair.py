"""The two byte-pair tokenizers of GLIDE, from the vocabulary files its authors published.

Captions are lower-cased by both. `load_caption_bpe` is GPT-2's scheme (Radford et al. 2019), used
by the diffusion models; `load_clip_bpe` is CLIP's (Radford et al. 2021), used by the noised CLIP.
Files may be gzipped or not; they are data from elsewhere, and read with a limit.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calotype.conditioning import TokenIds
from calotype.errors import CalotypeError
from calotype.storage.reading import open_regular
from calotype.text.encoder import pad_tokens

VOCABULARY_NAMES = ("encoder.json", "encoder.json.gz", "vocab.json")
MERGES_NAMES = ("vocab.bpe", "vocab.bpe.gz", "merges.txt")
CLIP_NAMES = ("bpe_simple_vocab_16e6.txt", "bpe_simple_vocab_16e6.txt.gz")
_LARGEST_FILE = 64_000_000  # unpacked; the largest of them has 3 MB
_CLIP_MERGES = 49152 - 256 - 2
_CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>")
_CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_QUOTES = str.maketrans({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
_END_OF_WORD = "</w>"


class CaptionBPE:
    """Byte-pair tokens of captions as GLIDE's diffusion models read them; no special tokens."""

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.vocabulary_size = len(vocabulary)
        self.end_token = vocabulary.get("<|endoftext|>", len(vocabulary) - 1)
        self._tokenizer = _tokenizer(vocabulary, merges)

    def encode(self, caption: str) -> list[int]:
        """Ids of a caption, lower-cased; white space counts."""
        ids: list[int] = self._tokenizer.encode(caption.lower(), add_special_tokens=False).ids
        return ids


class ClipBPE:
    """CLIP's byte-pair tokens, between a start and an end mark.

    Captions are cleaned as the reference's are in ordinary cases: typographic quotes become plain
    ones, HTML entities characters, runs of white space one space. (It also repairs text that was
    decoded wrongly; that is not done here.)
    """

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        alphabet = byte_alphabet()
        words = [*alphabet, *(byte + _END_OF_WORD for byte in alphabet)]
        words += ["".join(merge) for merge in merges]
        self.start_token, self.end_token = len(words), len(words) + 1
        words += _CLIP_SPECIALS
        vocabulary = {word: index for index, word in enumerate(words)}
        self.vocabulary_size = len(vocabulary)
        self._tokenizer = _tokenizer(vocabulary, merges, clip=True)

    @property
    def description(self) -> str:
        """All that decides the ids."""
        text: str = self._tokenizer.to_str()
        return text

    def encode(self, caption: str) -> list[int]:
        """Ids of a caption, without the marks."""
        text = unicodedata.normalize("NFC", caption.translate(_QUOTES))
        text = html.unescape(html.unescape(text))
        text = re.sub(r"\s+", " ", text).strip().lower()
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def tokens(self, captions: Sequence[str], max_tokens: int) -> TokenIds:
        """Ids between marks, (B, L); of a caption that is too long, the first and the marks."""
        parts = [self.encode(caption)[: max_tokens - 2] for caption in captions]
        return TokenIds(*pad_tokens([[self.start_token, *p, self.end_token] for p in parts]))


def load_caption_bpe(folder: Path) -> CaptionBPE:
    """Read `encoder.json` and `vocab.bpe` (or GPT-2's other names for them) from `folder`.

    Raises:
        CalotypeError: files are missing or damaged.
    """
    path = find_file(folder, VOCABULARY_NAMES)
    try:
        vocabulary = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(vocabulary, dict) or sorted(map(str, vocabulary.values())) != sorted(
        map(str, range(len(vocabulary)))
    ):
        raise _damaged(path)
    place = find_file(folder, MERGES_NAMES)
    merges = _merges(_text(place).split("\n")[1:], place, len(vocabulary))
    try:
        return CaptionBPE({word: int(index) for word, index in vocabulary.items()}, merges)
    except Exception as error:  # tokenizers raises bare ones: a merge out of the vocabulary
        raise _damaged(place) from error


def load_clip_bpe(folder: Path) -> ClipBPE:
    """Read `bpe_simple_vocab_16e6.txt` from `folder`.

    Raises:
        CalotypeError: the file is missing or damaged.
    """
    path = find_file(folder, CLIP_NAMES)
    merges = _merges(_text(path).split("\n")[1:], path, _CLIP_MERGES)
    try:
        return ClipBPE(merges)
    except Exception as error:  # see above
        raise _damaged(path) from error


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of `names` that is in `folder`.

    Raises:
        CalotypeError: none is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CalotypeError(
        f"the tokenizer folder {folder} has none of {', '.join(names)}; give the folder with the "
        "vocabulary files of glide-text2im, or one of `calotype data tokenizer`"
    )


def read_unpacked(path: Path) -> bytes:
    """A vocabulary file of at most 64 MB, unpacked if it is gzipped.

    Raises:
        CalotypeError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            whole = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            data = whole.read(_LARGEST_FILE + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path) from error
    if len(data) > _LARGEST_FILE:
        raise _damaged(path)
    return data


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte, in the vocabularies' order.

    Bytes that print stand for themselves and come first; the others are moved above 255
    (Radford et al. 2019).
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(len(others))]


def _tokenizer(
    vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], *, clip: bool = False
) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    suffix = {"end_of_word_suffix": _END_OF_WORD} if clip else {}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges), **suffix))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not clip)
    if not clip:
        tokenizer.pre_tokenizer = byte_level
        return tokenizer
    # What the pattern does not match is white space, and dropped.
    split = pre_tokenizers.Split(Regex(_CLIP_PATTERN), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    specials = [AddedToken(text, normalized=False, special=True) for text in _CLIP_SPECIALS]
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _merges(lines: Sequence[str], path: Path, limit: int) -> list[tuple[str, str]]:
    merges = []
    for line in lines[:limit]:
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 2:
            raise _damaged(path)
        merges.append((parts[0], parts[1]))
    return merges


def _text(path: Path) -> str:
    try:
        return read_unpacked(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CalotypeError:
    return CalotypeError(f"{path} is no vocabulary file or is damaged; get the file again")
