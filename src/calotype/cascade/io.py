"""Cascades on disk: `cascade.json`, and one folder a stage with safetensors and JSON; no pickle.

A byte-pair tokenizer comes along, in the folder `tokenizer`.

Nothing in a file is believed: the header is compared with the network the settings describe, built
without memory, and the SHA-256 with the one noted down, before a single weight is copied.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from calotype.cascade.stage import Stage
from calotype.config.stage import CascadeConfig, StageConfig
from calotype.config.typed_json import load_settings, to_dict
from calotype.errors import ConfigError
from calotype.storage.files import new_folder, write_file
from calotype.storage.places import check_holds_only
from calotype.storage.weights import load_module, save_weights
from calotype.text.tokenizer_folder import COPY_NAMES, OWN_SPEC, copied_spec, copy_tokenizer

if TYPE_CHECKING:
    from calotype.cascade.prior import Prior

CASCADE_FILE, STAGE_FILE, WEIGHTS_FILE = "cascade.json", "stage.json", "weights.safetensors"
PRIOR_FILE, CARD_FILE = "prior.json", "README.md"


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """One stage in `cascade.json`: its folder's name and the SHA-256 of its weights file."""

    folder: str
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", self.folder):
            raise ConfigError(f"got folder={self.folder!r}; expected a plain name such as '64'")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"got sha256={self.sha256!r:.80}; expected 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class CascadeFile:
    """What `cascade.json` holds.

    Args:
        format: of the file.
        name: of the cascade.
        text_encoder: as `build_text_encoder` reads it; of a tokenizer that came along, where it
            stands now.
        stages: from coarse to fine.
        prior: of an unCLIP cascade, or None.
        tokenizer_sha256: of the tokenizer that came along, or None.
    """

    format: int
    name: str
    text_encoder: str
    stages: tuple[StageEntry, ...]
    prior: StageEntry | None = None
    tokenizer_sha256: str | None = None

    ADDED = ("prior", "tokenizer_sha256")

    def __post_init__(self) -> None:
        if self.format != 1:
            raise ConfigError(f"got format={self.format}; expected 1: get a newer calotype")
        if not self.stages:
            raise ConfigError("got no stages; expected at least one")

    @property
    def encoder_id(self) -> str:
        """What tells text encoders apart, for people: equal for copies of one tokenizer."""
        if self.tokenizer_sha256 is None:
            return self.text_encoder
        return f"{OWN_SPEC} of SHA-256 {self.tokenizer_sha256[:16]}…"


def save_stage(stage: Stage | Prior, folder: Path, *, dtype: torch.dtype = torch.float32) -> str:
    """Write the settings and weights of a stage, or of a prior, into `folder`, made if missing.

    Args:
        stage: what is saved.
        folder: where; each of its two files is replaced all at once.
        dtype: number type of the parameters in the file; buffers stay float32 or integers.

    Returns:
        The SHA-256 of the weights file.

    Raises:
        CalotypeError: the disk is full or the folder cannot be written to, or a weight is not
            finite in `dtype`.
    """
    digest = save_weights(stage, folder / WEIGHTS_FILE, dtype=dtype)
    name = STAGE_FILE if isinstance(stage, Stage) else PRIOR_FILE
    write_file(folder / name, json.dumps(to_dict(stage.config), indent=1).encode())
    return digest


def load_stage(folder: Path, *, sha256: str | None = None) -> Stage:
    """Read a stage, in float32 on the CPU, whatever the number type of the file.

    Args:
        folder: with `stage.json` and `weights.safetensors`.
        sha256: what the weights file must have; None = not compared.

    Raises:
        CalotypeError: a file is missing, truncated or damaged, or does not fit the settings.
    """
    config = load_settings(folder / STAGE_FILE, StageConfig)
    return load_module(folder / WEIGHTS_FILE, lambda: Stage(config), sha256=sha256)


def save_cascade(
    folder: Path,
    *,
    stages: Sequence[Stage],
    text_encoder: str,
    name: str,
    dtype: torch.dtype = torch.float32,
    prior: Prior | None = None,
) -> None:
    """Write a whole cascade; an older one in `folder` is replaced all at once.

    Its README.md is carried over.

    Raises:
        UsageError: `folder` holds something else.
        CalotypeError: the disk is full or `folder` cannot be written to.
    """
    configs = tuple(stage.config for stage in stages)
    CascadeConfig(stages=configs, text_encoder=text_encoder, name=name)  # refuses what misfits
    folder = folder.resolve()
    check_replaceable(folder)
    with new_folder(folder) as temporary:

        def saved(stage: Stage | Prior, place: str) -> StageEntry:
            digest = save_stage(stage, temporary / place, dtype=dtype)
            return StageEntry(folder=place, sha256=digest)

        tokenizer = copy_tokenizer(text_encoder, temporary)
        file = CascadeFile(
            format=1,
            name=name,
            text_encoder=text_encoder if tokenizer is None else OWN_SPEC,
            stages=tuple(saved(stage, str(stage.config.resolution)) for stage in stages),
            prior=None if prior is None else saved(prior, "prior"),
            tokenizer_sha256=tokenizer,
        )
        write_file(temporary / CASCADE_FILE, json.dumps(to_dict(file), indent=1).encode())
        if (folder / CARD_FILE).is_file():
            shutil.copy2(folder / CARD_FILE, temporary / CARD_FILE)


def check_replaceable(folder: Path) -> None:
    """Refuse a folder for a cascade unless it is new, empty, or a cascade and nothing else.

    Only files that its cascade.json names, and README.md, are a cascade's; whatever else lies there
    would be lost.

    Raises:
        UsageError: it holds anything else.
        CalotypeError: it cannot be read.
    """
    own = {CASCADE_FILE, CARD_FILE}
    if (folder / CASCADE_FILE).is_file():
        file = load_settings(folder / CASCADE_FILE, CascadeFile)
        if file.tokenizer_sha256 is not None:
            own |= {*COPY_NAMES}
        for entry in (*file.stages, *(() if file.prior is None else (file.prior,))):
            names = (STAGE_FILE, PRIOR_FILE, WEIGHTS_FILE)
            own |= {entry.folder, *(f"{entry.folder}/{name}" for name in names)}
    check_holds_only(folder, own, what="cascade", marker=CASCADE_FILE)


def read_cascade_file(folder: Path) -> CascadeFile:
    """`cascade.json` of a cascade folder.

    Raises:
        CalotypeError: it is missing or damaged, or the tokenizer is another than was noted down.
    """
    file = load_settings(folder / CASCADE_FILE, CascadeFile)
    if file.tokenizer_sha256 is None:
        return file
    return replace(file, text_encoder=copied_spec(folder.resolve(), file.tokenizer_sha256))
