"""`calotype score`: how well images fit a caption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.cli.options import Clip, Device, Json, Threads
from calotype.cli.visible import visible
from calotype.errors import CalotypeError, UsageError


def score(
    images: Annotated[list[Path], Argument(help="Images of any common format.")],
    caption: Annotated[
        list[str] | None,
        Option(
            help="What they show: once for all, or once for each; images of calotype's own say "
            "it themselves."
        ),
    ] = None,
    clip: Clip = None,
    as_json: Json = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Score how well images fit a caption: 100 x cosine of CLIP's embeddings.

    Scores of different CLIPs cannot be compared.
    """
    import torch

    from calotype.cascade.image_files import read_image
    from calotype.cascade.pixels import MAX_PIXELS, from_pixels
    from calotype.runtime import choose_runtime
    from calotype.vision.clip import load_clip, square

    runtime = choose_runtime(device, "float32", threads)
    runtime.apply(())
    model = load_clip(clip)
    model.network.to(runtime.device)
    squares, side = [], model.file.clip.image.resolution  # small, whatever the images' size
    for image in images:
        pixels = read_image(image, most_pixels=MAX_PIXELS, still=True)
        squares.append(square(from_pixels(pixels[None]), side))
    captions = _captions(images, caption or [])
    found = [round(score, 3) for score in model.scores(torch.cat(squares), captions).tolist()]
    if as_json:
        scores = [
            {"file": str(image), "caption": text, "score": number}
            for image, text, number in zip(images, captions, found, strict=True)
        ]
        facts = {"clip": model.name, "clip_sha256": model.fingerprint}
        print(json.dumps({"scores": scores, **facts}))
        return
    # Runs of one recipe have one name, and their scores cannot be compared.
    name = model.name if clip is None else f"{model.name} {model.fingerprint:.8}"
    for image, number in zip(images, found, strict=True):
        print(f"{number:7.3f}  {name}  {visible(str(image))}")


def _captions(images: list[Path], given: list[str]) -> list[str]:
    """The caption of each image."""
    if len(given) == 1:
        return given * len(images)
    if given and len(given) != len(images):
        count = f"{len(given)} captions for {len(images)} images"
        raise UsageError(f"got {count}; expected one, or one for each")
    return given or [_own_caption(image) for image in images]


def _own_caption(image: Path) -> str:
    from calotype.cascade.png import read_recipe

    try:
        caption = read_recipe(image)["caption"]
    except (CalotypeError, KeyError) as error:
        message = f"got {image}, which does not say its caption; expected --caption TEXT"
        raise UsageError(message) from error
    return str(caption)
