"""Which files images are written to: none is written over another.

A name that is given for one image is that image's, whatever is there. All other names, numbered
ones and those made of a caption and a seed, are taken where nothing is, or the same image.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import write_file
from calotype.storage.places import check_output
from calotype.storage.reading import open_regular, read_regular

if TYPE_CHECKING:
    import numpy as np

_SLUG_CHARACTERS, _SLUG_BYTES = 48, 96  # file systems take names of 143 bytes and more
_ID_DIGITS = 8
_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of any PNG


def check_output_name(output: Path | None) -> None:
    """Refuse a name that nothing can be written to, before anything is computed.

    Raises:
        UsageError: the folder is missing or the name is not that of a PNG.
        CalotypeError: the folder cannot be written to.
    """
    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"got output {str(output)!r:.200}; expected a name ending in .png")
    check_output(Path("x.png") if output is None else output)


def numbered_name(output: Path, number: int, count: int) -> Path:
    """File name of image `number` of `count`: a.png alone, or a-0.png, a-1.png, ..."""
    return output if count == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")


def slug(caption: str) -> str:
    """The letters and digits of a caption, of any script, joined by "-"; "image" if it has none."""
    letters = [
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in unicodedata.normalize("NFC", caption[:200]).lower()
    ]
    start = "-".join("".join(letters).split())[:_SLUG_CHARACTERS]
    # Names are counted in bytes, and not every system takes every letter.
    encoding = sys.getfilesystemencoding()
    start = start.encode(encoding, "ignore")[:_SLUG_BYTES].decode(encoding, "ignore")
    return start.strip("-") or "image"


@dataclass(frozen=True)
class Output:
    """Where an image goes: the first of `names` that nothing else has.

    Args:
        names: best first.
        replace: whether the first is given for this image alone, and replaced whatever it is.
        write_caption: whether NAME.txt is written beside NAME.png.
    """

    names: tuple[Path, ...]
    replace: bool = False
    write_caption: bool = False

    def check(self, recipe: Mapping[str, Any]) -> None:
        """Refuse to begin an image that could not be written then.

        Raises:
            UsageError: every name is that of another file.
        """
        if not self.replace and not any(self._is_free(name, recipe) for name in self.names):
            raise UsageError(
                f"{self.names[-1]} is there already, and not the image that would be written; "
                "choose another name with -o, or move it away"
            )

    def write(self, pixels: np.ndarray, recipe: Mapping[str, Any]) -> Path:
        """Write an image, (H, W, 3) uint8, with its recipe; its name.

        Raises:
            UsageError: every name is that of another file by now.
            CalotypeError: the file cannot be written.
        """
        from calotype.cascade.png import write_png

        for name in self.names:
            if not (self.replace or self._is_free(name, recipe)):
                continue
            try:
                own = self.replace or holds_image(name, recipe)
                write_png(name, pixels, recipe, replace=own)
            except FileExistsError:  # another process was quicker
                continue
            if self.write_caption:
                self.write_text(name, recipe)
            return name
        self.check(recipe)
        raise UsageError(f"{self.names[-1]} was taken meanwhile; run the command again")

    @staticmethod
    def write_text(name: Path, recipe: Mapping[str, Any]) -> None:
        """Write the caption beside an image."""
        write_file(name.with_suffix(".txt"), _text(recipe))

    def _is_free(self, name: Path, recipe: Mapping[str, Any]) -> bool:
        if self.write_caption and os.path.lexists(text := name.with_suffix(".txt")):
            try:
                if read_regular(text, most_bytes=len(_text(recipe))) != _text(recipe):
                    return False
            except OSError:
                return False
        return not os.path.lexists(name) or holds_image(name, recipe)


OWN = ("caption", "negative_caption", "class", "seed", "best_of")
"""Of a recipe, what each of several images has of its own."""


def default_output(recipe: Mapping[str, Any]) -> Output:
    """Where an image goes that no name is given for: CAPTION-SEED.png, or CAPTION-SEED-ID.png.

    One without a caption is called by its class.
    """
    name = recipe["caption"] or recipe.get("class") or ""
    return output_with_id(Path(f"{slug(name)}-{recipe['seed']}.png"), recipe)


def output_with_id(name: Path, recipe: Mapping[str, Any]) -> Output:
    """Where an image goes that would be called `name`; if another has that, its id is added."""
    return Output((name, name_with_id(name, recipe)))


def name_with_id(name: Path, recipe: Mapping[str, Any]) -> Path:
    """NAME.png as NAME-ID.png, with the beginning of the image's id."""
    from calotype.cascade.recipe import image_id

    return name.with_name(f"{name.stem}-{image_id(recipe)[:_ID_DIGITS]}{name.suffix}")


def few_outputs(
    given: Path | None, recipes: Sequence[Mapping[str, Any]], *, write_captions: bool
) -> list[Output]:
    """Where images of the command line go, each checked; see `Output`.

    Args:
        given: of -o; None = names of their own.
        recipes: one an image.
        write_captions: whether each has its caption beside it.

    Raises:
        UsageError: another file has the name of one.
    """
    outputs, count = [], len(recipes)
    for number, recipe in enumerate(recipes):
        output = default_output(recipe)
        if given is not None:
            output = Output((numbered_name(given, number, count),), replace=count == 1)
        outputs.append(replace(output, write_caption=write_captions))
        outputs[-1].check(recipe)
    return outputs


def holds_image(path: Path, recipe: Mapping[str, Any], *, whole: bool = False) -> bool:
    """Whether a file holds the image of a recipe, whoever computed it; `whole`: to its end."""
    from calotype.cascade.png import read_recipe
    from calotype.cascade.recipe import image_id

    try:
        if image_id(read_recipe(path)) != image_id(recipe):
            return False
        with open_regular(path) as file:
            file.seek(-len(_END), os.SEEK_END)
            return not whole or file.read() == _END
    except (CalotypeError, OSError):
        return False


def _text(recipe: Mapping[str, Any]) -> bytes:
    caption: str = recipe["caption"]
    return caption.encode("utf-8", "replace")
