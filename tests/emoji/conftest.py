"""A tiny emoji-like set on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

pytest.importorskip("pyarrow.parquet")

from calotype.emoji.plan import Artwork, PlannedImage
from calotype.emoji.shards import ShardPlan, write_shard

SIDE = 32
COLOURS = ("red", "green", "blue", "orange", "purple", "black", "brown", "teal", "navy", "olive")
STYLES = {"noto": "noto style", "fluent": "glossy gradient style"}


def image(number: int, emoji_set: str) -> bytes:
    """A coloured bar, its height told by the number, transparent around."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    left = 4 if emoji_set == "noto" else 14
    pen.rectangle((left, 2 * number, left + 12, 2 * number + 9), fill=COLOURS[number])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def split_of(number: int, emoji_set: str) -> str:
    if number == 9:
        return "unseen_concept"
    return "unseen_pair" if number == 8 and emoji_set == "noto" else "train"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten concepts in two sets, written by the real writer, 32 pixels wide."""
    folder = tmp_path_factory.mktemp("emoji")
    for emoji_set, style in STYLES.items():
        rows = tuple(
            PlannedImage(
                key=f"{emoji_set}/{colour}-bar",
                name=f"{colour} bar",
                keywords=(colour,),
                group="objects",
                style=style,
                set=emoji_set,
                license="MIT",
                concept=f"{colour} bar",
                split=split_of(number, emoji_set),  # type: ignore[arg-type]
                artwork=Artwork(colour, b""),
            )
            for number, colour in enumerate(COLOURS)
        )
        plan = ShardPlan(folder / "256" / f"{emoji_set}-00000.parquet", 256, rows)
        write_shard(plan, [image(number, emoji_set) for number in range(len(COLOURS))])
    source = {
        "set": "noto",
        "author": "Somebody",
        "url": "https://example.org/noto",
        "package": {"name": "@example/noto", "version": "1.0.0"},
    }
    (folder / "recipe.json").write_text(json.dumps({"recipe": {"sources": [source]}}))
    (folder / "ATTRIBUTION.md").write_text("# Attribution\n\nSomebody drew the bars.\n")
    return folder
