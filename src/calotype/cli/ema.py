"""`calotype ema`: averaged weights of a run, their length chosen after training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.cli.options import Json
from calotype.errors import UsageError

_POOR_FIT = 0.1


def ema(
    run: Annotated[Path, Argument(help="Run trained with posthoc_ema_images.")],
    length: Annotated[
        float, Option(help="Width of the average as a fraction of the run, 0.005 to 0.28.")
    ],
    out: Annotated[
        Path, Option("-o", "--out", help="NAME.safetensors for train --init, or a cascade folder.")
    ],
    images: Annotated[
        int | None, Option(help="Where the average ends, in images; the end if not given.")
    ] = None,
    resolution: Annotated[
        int | None, Option(help="Stage; the finest with snapshots if not given.")
    ] = None,
    dtype: Annotated[str, Option(help="float16 or float32 weights.")] = "float32",
    as_json: Json = False,
) -> None:
    """Average a run's weights over a length chosen now (power-function profiles)."""
    import torch

    from calotype.storage.places import check_output
    from calotype.tasks.chosen_ema import choose_average, write_average

    kinds = {"float16": torch.float16, "float32": torch.float32}
    if dtype not in kinds:
        raise UsageError(f"got dtype {dtype!r}; expected one of {list(kinds)}")
    if not run.is_dir():
        raise UsageError(f"got {run}, which is no folder; expected that of a training run")
    if out.suffix == ".safetensors":
        check_output(out)
    elif not out.resolve().parent.is_dir():
        raise UsageError(f"the folder {out.parent} of the output is missing; make it first")
    chosen = choose_average(run, length=length, images=images, resolution=resolution)
    write_average(chosen, run, out, dtype=kinds[dtype])
    if chosen.fit.error > _POOR_FIT:
        print(
            f"calotype: the profile is off by {chosen.fit.error:.0%}; more snapshots (a smaller "
            "posthoc_ema_images) would help",
            file=sys.stderr,
        )
    facts = {
        "file": str(out),
        "resolution": chosen.stage.config.resolution,
        "images": chosen.images,
        "length": length,
        "snapshots": chosen.snapshots,
        "profile_error": round(chosen.fit.error, 6),
    }
    if as_json:
        print(json.dumps(facts))
        return
    print(
        f"{out}: {facts['resolution']} pixels, average of length {length:g} ending at "
        f"{chosen.images} images, from {chosen.snapshots} snapshots "
        f"(profile error {chosen.fit.error:.2%})"
    )
