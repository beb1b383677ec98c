"""Where the caption store keeps what: one folder for each encoder and precision, with a card.

See `store.py` for the whole image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from calotype.errors import CalotypeError, ConfigError
from calotype.storage.files import make_folder, write_file
from calotype.storage.reading import read_regular
from calotype.text.encoder import TextEncoder
from calotype.text.shard import GOES_ON, Precision

_CARD = "encoder.json"
_LARGEST_CARD = 1_000_000
_CARD_FIELDS = ("fingerprint", "spec", "embed_dim", "precision")


@dataclass(frozen=True, kw_only=True)
class StoreLayout:
    """How a store is written.

    Args:
        precision: "float16", or "int8" (half the size, about 1 % error a state).
        shard_bytes: a shard is closed when it holds this much,
        shard_seconds: or when it has taken this long: all that a kill can cost.
    """

    precision: Precision = "float16"
    shard_bytes: int = 128_000_000
    shard_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.precision not in ("float16", "int8"):
            raise ConfigError(f"got precision={self.precision!r}; expected 'float16' or 'int8'")


@dataclass(frozen=True)
class StoreCard:
    """What `encoder.json` says: which encoder a store belongs to, and how it is written."""

    fingerprint: str
    spec: str
    embed_dim: int
    precision: Precision
    folder: Path = field(compare=False)


def store_cards(folder: Path) -> list[StoreCard]:
    """The stores in a folder, by name."""
    cards = []
    for path in sorted(folder.glob(f"*/{_CARD}")):
        try:
            data = json.loads(read_regular(path, most_bytes=_LARGEST_CARD))
            fields = {name: data[name] for name in _CARD_FIELDS}
            cards.append(StoreCard(**fields, folder=path.parent))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CalotypeError(
                f"caption store {path} is damaged ({error}); delete it and embed again"
            ) from error
    return cards


def write_card(folder: Path, encoder: TextEncoder, precision: Precision) -> StoreCard:
    """Make the folder of an encoder's store, unless it is there.

    Raises:
        CalotypeError: the folder cannot be made or written.
    """
    spec = str(getattr(encoder, "spec", type(encoder).__name__))
    place = folder / f"{encoder.fingerprint[:16]}-{precision}"
    card = StoreCard(encoder.fingerprint, spec, encoder.embed_dim, precision, place)
    make_folder(place)
    if not (place / _CARD).exists():
        fields = {name: getattr(card, name) for name in _CARD_FIELDS}
        text = json.dumps({"format": 1, **fields}, indent=2)
        write_file(place / _CARD, text.encode(), state=GOES_ON)
    return card
