"""Captions: widths of T5 encoders from a table; the encoder itself only when it is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from calotype.conditioning import TextEmbedding
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.text import TextEncoder, build_text_encoder
from calotype.text.encoder import check_encoder

DEFAULT_T5_NAME = "google/t5-v1_1-base"
_SIZES = {"small": 512, "base": 768, "large": 1024, "xl": 2048, "xxl": 4096}
_FIRST_SIZES = {"small": 512, "base": 768, "large": 1024, "3b": 1024, "11b": 1024}
_BYTE_SIZES = {"small": 1472, "base": 1536, "large": 1536, "xl": 2560, "xxl": 4672}
_FAMILIES = {
    "t5": _FIRST_SIZES,
    **dict.fromkeys(("t5-v1_1", "flan-t5", "mt5", "umt5"), _SIZES),
    "byt5": _BYTE_SIZES,
}
T5_WIDTHS = {
    f"{family}-{size}": width
    for family, sizes in _FAMILIES.items()
    for size, width in sizes.items()
}
"""Widths by name, without the owner ("google/", "google-t5/"); from the published configs."""


def text_width(name: str) -> int:
    """Width of a T5 encoder's states, by its name, with or without the owner, or its folder.

    Raises:
        ConfigError: the width is not known here.
    """
    known = T5_WIDTHS.get(name.rpartition("/")[2])
    if known is not None:
        return known
    file = Path(name) / "config.json"
    if file.is_file():
        try:
            return int(json.loads(file.read_text(encoding="utf-8"))["d_model"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: got no d_model; expected the config of a T5") from error
    raise ConfigError(
        f"got text_encoder_name={name!r}, whose width is not known here; give text_embed_dim, or "
        "the path of a model folder"
    )


def as_encoder(given: TextEncoder | str | None) -> TextEncoder | None:
    """An encoder of states, or that of a spec of `build_text_encoder`; None for "none"."""
    found = build_text_encoder(given) if isinstance(given, str) else given
    return None if found is None else check_encoder(found, str(given))


class LazyText:
    """Encodes captions; loads the encoder, the T5 `name` if none is given, at the first caption.

    Attributes:
        spec: of the encoder that the first caption loads; saved with a cascade.
    """

    def __init__(self, name: str, given: TextEncoder | str | None) -> None:
        self.spec = given if isinstance(given, str) else f"t5:{name}"
        self._encoder = as_encoder(given)

    @property
    def width(self) -> int | None:
        """Width of a given encoder."""
        return None if self._encoder is None else self._encoder.embed_dim

    def __call__(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode captions; '' is the null caption. A T5 that is not at hand is refused."""
        if isinstance(texts, str):
            raise UsageError("texts: got one string, expected a list of strings; write [caption]")
        if self._encoder is None:
            try:
                self._encoder = as_encoder(self.spec)
            except CalotypeError as error:
                raise CalotypeError(
                    f"texts= needs the text encoder {self.spec!r}, which is not at hand; pass "
                    "text_embeds=, or give Imagen text_encoder= (an encoder, or a spec such as "
                    f"'t5:FOLDER') ({error})"
                ) from error
        assert self._encoder is not None
        return self._encoder(texts)
