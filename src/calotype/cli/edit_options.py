"""Options of `calotype edit` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

Source = Annotated[Path, Argument(help="Image to edit, of any common format.")]
Caption = Annotated[str, Argument(help="What the result shows; '' for no caption.", metavar="TEXT")]
Mask = Annotated[
    Path | None, Option(help="Image of the same size: white, or transparent, is generated.")
]
InvertMask = Annotated[bool, Option("--invert-mask", help="Black, or opaque, is generated.")]
FitMask = Annotated[bool, Option("--fit-mask", help="Resize the mask to the image.")]
Boxes = Annotated[
    list[str] | None,
    Option("--box", help="Generate left,top,width,height, in pixels. Can be repeated."),
]
Extend = Annotated[
    str | None, Option(help="Out-painting: margins left,top,right,bottom, in pixels.")
]
Strength = Annotated[
    float | None,
    Option(help="Image-to-image: how much is made anew, 0 to 1; with a mask, inside it."),
]
Vary = Annotated[
    float | None,
    Option(help="Variations: enlarge the image's small version again, noised so far, 0 to 1."),
]
Invert = Annotated[
    bool,
    Option(
        "--invert",
        help="Start from the image's own noise (DDIM inversion): its own caption gives it back, "
        "another keeps what it does not speak of.",
    ),
]
Refine = Annotated[
    int, Option(help="With --invert: corrections of each of its steps, by fixed-point iteration.")
]
SourceCaption = Annotated[
    str | None,
    Option(
        "--source-caption",
        help="With --invert: what the image shows; an image of calotype's own says it.",
    ),
]
Grow = Annotated[int, Option(help="Pixels by which what is generated is widened.")]
Feather = Annotated[
    int, Option(help="Pixels outside over which what is generated fades into the image.")
]
Crop = Annotated[
    Literal["auto", "off"],
    Option(help="auto: generate a small hole in a window round it, at full resolution."),
]
Padding = Annotated[float, Option(help="Of that window on each side, as a fraction of the hole.")]
Blind = Annotated[
    bool,
    Option(
        "--blind", help="Do not let draft and network see what is kept: they follow the caption."
    ),
]
Repaint = Annotated[
    str | None,
    Option(
        "--resampling",
        help="RePaint's JUMP,REPEATS, e.g. 4,4, for seams that fit better.",
        metavar="J,R",
    ),
]
Background = Annotated[
    str, Option(help="Colour behind what is transparent, as the network sees it.")
]
Like = Annotated[
    Path | None,
    Option(help="PNG that an edit made, to make again of the same image (and --mask)."),
]
List = Annotated[
    Path | None,
    Option(
        "--list",
        help="Edits one after another: a JSON object a line, with caption, seed, boxes, mask, "
        "extend, strength, invert, ...; every step's image is kept.",
    ),
]
Count = Annotated[int, Option("-n", help="Images, with seeds s, s+1, ...")]
Size = Annotated[
    int | None, Option(help="Resolution of the last stage that generates (64, 256, 1024).")
]
