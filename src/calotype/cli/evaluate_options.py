"""Options of the commands that evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Source = Annotated[
    str,
    Argument(
        help="'default', a cascade or run folder, a converted one of imagen-pytorch, a local "
        "text-to-image folder of diffusers, a folder of samples or an evaluation, or images of any "
        "program."
    ),
]
SuiteName = Annotated[
    str,
    Option(
        "--suite",
        help="emoji-11, or a file: DrawBench, PartiPrompts, GenEval, T2I-CompBench, DSG, TIFA, "
        "GenAI-Bench, COCO's captions, or text with a prompt a line.",
    ),
]
Prompts = Annotated[
    int | None, Option("--prompts", help="Take this many of the suite's prompts, by hash.")
]
CocoList = Annotated[
    Path | None, Option("--coco-list", help="Another's list of COCO's images or captions.")
]
WithoutPeople = Annotated[
    str | None,
    Option(
        "--without-people",
        help="Of COCO: leave out images with people, by a file of instances, or by 'words'.",
    ),
]
Reference = Annotated[
    Path | None, Option(help="Real images: anything that training takes as its data.")
]
ReferenceSplit = Annotated[
    str | None, Option(help="Split of the reference that is taken; all if not given.")
]
ReferenceImages = Annotated[
    int | None, Option(help="Take this many of the reference's images, by hash.")
]
TrainingImages = Annotated[
    Path | None,
    Option("--training", help="Training images: look for samples that copy one of them."),
]
Losses = Annotated[
    int,
    Option(
        "--losses",
        help="Images of the reference that each stage's loss is measured on, by noise level; 0 = "
        "it is not.",
    ),
]
AlexNet = Annotated[
    Path | None,
    Option("--alexnet", help="AlexNet's weights (alexnet-owt-7be5be79.pth): measure LPIPS, too."),
]
Features = Annotated[
    list[str] | None,
    Option(
        "--features",
        help="lite0, inception=FILE, clip[=FOLDER], clip-cmmd=FOLDER or dinov2=FOLDER; lite0 if "
        "not given. Can be repeated.",
    ),
]
ClipScore = Annotated[
    str | None,
    Option(
        "--clip",
        help="Folder of the CLIP that scores captions; the embedded one if not given; 'none'.",
    ),
]
Side = Annotated[
    int | None,
    Option("--side", help="Pixels that images are brought to before features; at most 256."),
]
Scorers = Annotated[
    list[str] | None,
    Option(
        "--scorer",
        help="NAME=COMMAND of a program that scores images: JSON lines in, JSON lines out. Can "
        "be repeated.",
    ),
]
ScorerTimeout = Annotated[
    float | None,
    Option(
        "--scorer-timeout",
        help="Seconds that a scorer may take for its next answer, the first one's loading "
        "included; 600 if not given.",
    ),
]
FeaturesRoot = Annotated[
    Path | None, Option("--cache", help="Folder of features; in the user's cache if not given.")
]
Card = Annotated[
    bool, Option("--card", help="Write the model card of a cascade of the emoji set, too.")
]
CardPart = Annotated[
    list[Path] | None,
    Option(
        "--card-part",
        help="Made before, and shown on the card: a run, a folder of scored naming sheets, or "
        "editing.json. Can be repeated.",
    ),
]
Each = Annotated[int, Option("-n", help="Images of each prompt.")]
OutFolder = Annotated[Path, Option("-o", "--out", help="Folder to write into.")]
Workers = Annotated[
    int | None, Option(help="Processes; this one if not given, on Ray as many as there are cores.")
]
Size = Annotated[str | None, Option(help="Resolution of the last stage, or WIDTHxHEIGHT.")]
