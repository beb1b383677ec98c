"""The byte-pair tokenizer of a run: copied into it, and never another than its weights know.

A network of the right size takes any numbers, and says nothing of it: what tells tokenizers apart
is the hash of their files, noted down wherever weights are.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from calotype.cascade.find import find_cascade
from calotype.cascade.io import CASCADE_FILE, read_cascade_file
from calotype.config.adm import TokensText
from calotype.config.clip import TextTowerConfig
from calotype.errors import ConfigError, UsageError
from calotype.text import Tokenizer, build_text_encoder
from calotype.text.encoder import misfit
from calotype.text.tokenizer_folder import (
    KIND,
    TOKENIZER_FOLDER,
    copy_tokenizer,
    tokenizer_sha256,
)
from calotype.training.preparation import Preparation

TokenTower = TokensText | TextTowerConfig
"""What reads token ids: it knows so many, and so many of a caption."""


def build_tokenizer(spec: str, tower: TokenTower) -> Tokenizer:
    """The tokenizer of a recipe, cut to what a text tower reads.

    Raises:
        ConfigError: it makes no ids, or more or fewer than the tower knows.
    """
    encoder = build_text_encoder(spec, max_tokens=tower.context)
    problem = misfit(encoder, 0, ids=True)
    if not isinstance(encoder, Tokenizer):
        raise ConfigError(
            f"got text_encoder={spec!r} for this network: {problem}; change the recipe"
        )
    if encoder.vocabulary_size != tower.vocabulary:
        raise ConfigError(
            f"got text_encoder={spec!r}, a tokenizer of {encoder.vocabulary_size:,} tokens, for a "
            f"network of {tower.vocabulary:,}; expected as many: change the network's vocabulary, "
            f"or make another: calotype data tokenizer DATA --vocabulary {tower.vocabulary} -o NEW"
        )
    return encoder


def run_tokenizer(
    preparation: Preparation,
    spec: str,
    tower: TokenTower,
    *,
    trained: dict[str, Path | None],
) -> str | None:
    """The specification of a run's own copy of its tokenizer, which is made if it is not there.

    It is taken from where the recipe says, or where that is gone, from what the run begins with.

    Args:
        preparation: of the run.
        spec: as the recipe has it; of another kind of encoder nothing is copied.
        tower: that reads the ids.
        trained: by what they are, folders with the tokenizer that other weights were trained with.

    Raises:
        UsageError: there is no such tokenizer, or it is another one.
    """
    if not spec.startswith(KIND):
        return None
    own, given = preparation.out / TOKENIZER_FOLDER, Path(spec.removeprefix(KIND))

    def work() -> None:
        known = {what: place for what, place in trained.items() if place is not None}
        if own.is_dir() and (preparation.out / "checkpoints").is_dir():
            known["this run"] = own
        source = next((p for p in (given, own, *known.values()) if p.is_dir()), None)
        if source is None:
            raise UsageError(
                f"got text_encoder={spec!r}, and no folder {given}; expected a tokenizer there: "
                f"make one with: calotype data tokenizer {preparation.data} "
                f"--vocabulary {tower.vocabulary} -o {given}"
            )
        _check_same(source, known)
        build_tokenizer(f"{KIND}{source}", tower)  # refused before it is copied
        if source != own:
            copy_tokenizer(f"{KIND}{source}", preparation.out)

    preparation.group.on_rank_zero(work)
    return f"{KIND}{own}"


def _check_same(source: Path, known: dict[str, Path]) -> None:
    """Refuse a tokenizer unless it is that of all weights that the run begins with."""
    found = tokenizer_sha256(source)
    for what, place in known.items():
        wanted = tokenizer_sha256(place)
        if wanted != found:
            raise UsageError(
                f"got the tokenizer {source} of SHA-256 {found[:16]}…; expected {wanted[:16]}…, "
                f"that of {what}, in {place}: move {source} away, and that one is taken"
            )


def copied_tokenizer(run: Path) -> str | None:
    """The specification of the copy in a run; None where it has none."""
    return f"{KIND}{run / TOKENIZER_FOLDER}" if (run / TOKENIZER_FOLDER).is_dir() else None


def tokenizer_of(path: Path | str | None) -> Path | None:
    """Where the tokenizer is that a cascade, a run or a stage has with it; None if it has none.

    Args:
        path: as `--init` takes it.

    Raises:
        CalotypeError: it is damaged, or another than was noted down.
    """
    if path is None:
        return None
    places = [*Path(path).parents[:2]]  # of a stage's folder, or of the weights in it
    with suppress(UsageError):
        places.insert(0, find_cascade(path))
    folder = next((place for place in places if (place / CASCADE_FILE).is_file()), None)
    if folder is None or read_cascade_file(folder).tokenizer_sha256 is None:
        return None
    return folder / TOKENIZER_FOLDER
