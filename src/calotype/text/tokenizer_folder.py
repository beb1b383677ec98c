"""Folders of byte-pair tokenizers: named in recipes, and copied into all that is trained with one.

    tokenizer/encoder.json   tokens and their numbers
    tokenizer/vocab.bpe      merges, the first made first

A copy has these two files, unpacked, whatever they were called where they came from. Its hash is
`cat encoder.json vocab.bpe | sha256sum`: networks of equal size that were trained with another
tokenizer would sample nonsense, and nobody would be told.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from calotype.errors import CalotypeError
from calotype.storage.files import make_folder, write_file
from calotype.text.byte_pair import MERGES_NAMES, VOCABULARY_NAMES, find_file, read_unpacked

KIND = "glide:"
"""How the specification of such a tokenizer begins, before its folder."""

TOKENIZER_FOLDER = "tokenizer"
"""Holds the copy in a run, a cascade or a CLIP."""

OWN_SPEC = KIND + TOKENIZER_FOLDER
"""How a folder names the copy in it."""

TOKENIZER_FILES = (VOCABULARY_NAMES[0], MERGES_NAMES[0])

COPY_NAMES = (TOKENIZER_FOLDER, *(f"{TOKENIZER_FOLDER}/{name}" for name in TOKENIZER_FILES))


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """What a copy of a tokenizer holds, by name.

    Raises:
        CalotypeError: files are missing or damaged.
    """
    names = (VOCABULARY_NAMES, MERGES_NAMES)
    return {known[0]: read_unpacked(find_file(folder, known)) for known in names}


def tokenizer_sha256(folder: Path) -> str:
    """The hash of a tokenizer; errors as of `tokenizer_files`."""
    return hashlib.sha256(b"".join(tokenizer_files(folder).values())).hexdigest()


def copy_tokenizer(spec: str, folder: Path) -> str | None:
    """Copy the tokenizer that a specification names into `folder`/tokenizer.

    Returns:
        Its hash; None where the specification names another kind of encoder: nothing is written.

    Raises:
        CalotypeError: files are missing or damaged, or the folder cannot be written to.
    """
    if not spec.startswith(KIND):
        return None
    files = tokenizer_files(Path(spec.removeprefix(KIND)))
    place = folder / TOKENIZER_FOLDER
    make_folder(place)
    for name, data in files.items():
        write_file(place / name, data)
    return hashlib.sha256(b"".join(files.values())).hexdigest()


def shown_spec(spec: str) -> str:
    """A specification as it is noted down in what is made: the same wherever a folder has moved."""
    own = spec.startswith(KIND) and Path(spec).name == TOKENIZER_FOLDER
    return OWN_SPEC if own else spec


def copied_spec(folder: Path, sha256: str) -> str:
    """The specification of the copy in `folder`, where it stands now.

    Raises:
        CalotypeError: it is missing, damaged, or another than was noted down.
    """
    place = folder / TOKENIZER_FOLDER
    found = tokenizer_sha256(place)
    if found != sha256:
        raise CalotypeError(
            f"got the tokenizer {place} of SHA-256 {found[:16]}…; expected {sha256[:16]}…, which "
            "the network was trained with: copy the whole folder again"
        )
    return f"{KIND}{place}"
