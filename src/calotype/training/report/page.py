"""The page itself: facts, charts and samples of a run in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from calotype.pages.page import render_page, write_page
from calotype.training.record import RunRecord, number, read_run
from calotype.training.report.charts import (
    bounds,
    by_noise,
    human,
    loss_charts,
    plot,
    speed_charts,
    validation_charts,
)
from calotype.training.report.curves import smoothed
from calotype.training.report.images import films

_RECENT = 200  # steps that a speed of "now" is taken over
_SHOWN_SKIPS = 50


def write_report(run: Path, output: Path) -> int:
    """Write the page about a run, whether it is finished or going on.

    Args:
        run: folder of the run; it is only read.
        output: HTML file, replaced in one step.

    Returns:
        Bytes of the page.

    Raises:
        UsageError: the folder holds no run that has taken a step.
        CalotypeError: the page cannot be written.
    """
    return write_page(output, render(read_run(run)))


def render(run: RunRecord) -> str:
    """The page's HTML. All text from the run is escaped: names and captions are anybody's."""
    return render_page(
        "calotype.training.report",
        "report.html.j2",
        plot=plot,
        short=lambda value: f"{number(value):.4g}",
        title=str(run.recipe.get("name", run.folder.resolve().name)),
        note=str(run.recipe.get("note", "")),
        folder=run.folder.resolve().name,
        images=run.images,
        total=run.total_images,
        tiles=_tiles(run),
        films=films(run),
        sections={
            "Loss": loss_charts(run),
            "Validation": validation_charts(run),
            "Speed": speed_charts(run),
        },
        bounds=bounds(run),
        validation=_last_validation(run),
        skips=[_skip(line) for line in run.skipped[-_SHOWN_SKIPS:]],
        skip_count=len(run.skipped),
        facts=_facts(run),
        recipe=json.dumps(run.recipe, indent=1, ensure_ascii=False) if run.recipe else "",
    )


def _tiles(run: RunRecord) -> list[tuple[str, str, str]]:
    """Name, value and a remark of the numbers at the top."""
    steps = run.steps
    total = run.total_images
    remark = f"of {total:,}" if total is not None else ""
    loss = smoothed(steps["loss"][run.segments[-1][1]])[-1]
    rows = [
        ("images seen", f"{run.images:,}", remark),
        ("loss", f"{loss:.4g}", "smoothed"),
        ("time in steps", _duration(run.seconds()), f"{len(steps['loss']):,} steps"),
    ]
    for name, column, show in (
        ("images a second", "images_per_second", human),
        ("FLOP/s", "flops_per_second", human),
        ("of the peak", "flops_share_of_peak", lambda value: f"{value:.0%}"),
        ("waiting for data", "data_wait", lambda value: f"{value:.1%}"),
    ):
        recent = steps[column][-_RECENT:]
        if np.isfinite(recent).any():
            rows.append((name, show(float(np.nanmedian(recent))), "newest steps"))
    for name in ("skipped", "rewinds"):
        value = steps[name][-1]
        if np.isfinite(value):
            rows.append((name, f"{int(value):,}", "steps" if name == "skipped" else ""))
    return rows


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """How the run was computed, from its newest checkpoint, and what its recipe asks for."""
    facts = []
    for stage in run.stages:
        config = stage.get("stage")
        kind = str(stage.get("kind", "recipe"))
        size = f"stage {config.get('resolution')} px" if isinstance(config, dict) else kind
        optimizer = stage.get("optimizer")
        rate = optimizer.get("learning_rate") if isinstance(optimizer, dict) else "?"
        value = (
            f"batch {stage.get('batch_size')}, learning rate {rate}, "
            f"{stage.get('total_images')} images, text encoder {stage.get('text_encoder', 'none')}"
            f", seed {stage.get('seed')}"
        )
        facts.append((size, value))
    validating = [number(line.get("seconds")) for line in run.validations]
    facts.append(("time in steps", _duration(run.seconds())))
    facts.append(("time in validations", _duration(float(np.nansum(validating)))))
    if run.state:
        facts.append(("newest checkpoint", f"{run.state.get('images')} images"))
    for group in ("runtime", "versions"):
        entries = run.state.get(group)
        if isinstance(entries, dict):
            facts += [(str(name), str(value)) for name, value in entries.items()]
    return facts


def _last_validation(run: RunRecord) -> dict[str, Any] | None:
    """Of the newest validation: images seen, and the errors of each kind of image by level."""
    for line in reversed(run.validations):
        rows = {kind: errors for kind, errors in line.items() if isinstance(errors, dict)}
        if rows:
            noise = any(by_noise(str(measure)) for measure in next(iter(rows.values())))
            return {"images": int(line["images"]), "rows": rows, "noise": noise}
    return None


def _skip(line: dict[str, Any]) -> dict[str, Any]:
    keys = line.get("keys")
    keys = [str(key) for key in keys] if isinstance(keys, list) else []
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return {
        "images": int(line["images"]),
        "reason": str(line.get("reason", "")),
        "keys": ", ".join(keys[:4]) + more,
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
