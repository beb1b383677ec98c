"""Options of `calotype sample` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

Captions = Annotated[
    list[str] | None,
    Argument(help="What to sample; '' samples without a caption. None for a model without text."),
]
Count = Annotated[int, Option("-n", help="Images a caption, with seeds s, s+1, ...")]
FirstSeed = Annotated[
    int | None, Option(help="Seed of the first image, 0 to 2^63-1; 0 if not given.")
]
Steps = Annotated[int | None, Option(help="Steps of the base stage.")]
Sampler = Annotated[
    str | None,
    Option(
        help="Sampler of the base stage: ddpm, ddim, dpmpp_2m, dpmpp_2m_sde or heun; the "
        "model's own if not given."
    ),
]
Guidance = Annotated[float | None, Option(help="Guidance weight of the base stage; 1 = off.")]
ClassNames = Annotated[
    list[str] | None,
    Option("--class", help="Class of the images, by its name; several: images of each."),
]
ClassName = Annotated[str | None, Option("--class", help="Class of the images, by its name.")]
Classifier = Annotated[
    str | None,
    Option(
        help="Folder or run of a classifier of noisy images that pulls those of the base towards "
        "--class; without it each image's class is chosen by its seed.",
        metavar="RUN",
    ),
]
ClassifierScale = Annotated[
    float | None, Option(help="How strongly; 1 if not given, 0 = off.", metavar="S")
]
ClipGuidance = Annotated[
    float | None,
    Option(
        help="How strongly a CLIP that knows noise (--clip) pulls the base's images towards their "
        "captions; 0 = off.",
        metavar="S",
    ),
]
Form = Annotated[
    Literal["score", "mean"] | None,
    Option(
        "--guidance-form",
        help="What classifier and CLIP move: the score, for every sampler and if not given, or "
        "the mean of the steps of ddpm or dpmpp_2m_sde.",
    ),
]
Variety = Annotated[
    float | None,
    Option(
        help="0 keeps to the draft, 1 differs most between seeds; of the base, if it samples "
        "from a draft."
    ),
]
Size = Annotated[
    str | None, Option(help="Resolution of the last stage (64, 256, 1024), or WIDTHxHEIGHT.")
]
Width = Annotated[
    int | None,
    Option(help="Width in pixels; a side that is not given is the model's last stage's."),
]
Height = Annotated[int | None, Option(help="Height in pixels.")]
FromFile = Annotated[Path | None, Option(help="Text file with one caption a line; - is the input.")]
Grid = Annotated[bool, Option("--grid", help="Write one sheet of all images.")]
Like = Annotated[Path | None, Option(help="Image to sample again; other options change it.")]
WriteCaptions = Annotated[
    bool, Option("--write-captions", help="Write NAME.txt with its caption beside NAME.png.")
]
Workers = Annotated[
    int | None,
    Option(
        help="With --from-file: processes that sample; 1 (this one) if not given, on Ray as "
        "many as there are cores."
    ),
]
Batch = Annotated[
    int | None,
    Option(help="With --from-file: images sampled together by a worker; up to 64 if not given."),
]
BestOf = Annotated[
    int | None,
    Option(
        help="Sample N candidates of each image at the first stage, and enlarge the one that a "
        "CLIP finds to fit its caption best.",
        metavar="N",
    ),
]
