"""Put images beside each other, as docs/editing.md shows them.

    python docs/examples/side_by_side.py OUT IMAGE ... [--height 256] [--crop LEFT,TOP,WIDTH,HEIGHT]

Each is shrunk to the height; `--crop` shows a part of the last one instead, in all its pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

GAP = 6


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--crop", help="LEFT,TOP,WIDTH,HEIGHT of the last image")
    options = parser.parse_args()
    shown = [Image.open(path).convert("RGB") for path in options.images]
    if options.crop is not None:
        left, top, width, height = map(int, options.crop.split(","))
        shown[-1] = shown[-1].crop((left, top, left + width, top + height))
    sized = [
        image.resize((round(image.width * options.height / image.height), options.height))
        for image in shown
    ]
    total = sum(image.width + GAP for image in sized) - GAP
    sheet, left = Image.new("RGB", (total, options.height), (244, 244, 244)), 0
    for image in sized:
        sheet.paste(image, (left, 0))
        left += image.width + GAP
    sheet.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
