"""Write a cascade's model card: `python -m calotype.emoji.card --model FOLDER --data DIR`.

Everything the card prints is measured here and now, or read from the runs that trained the
cascade; what is not there is said to be not available.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

import calotype
from calotype.cascade import Cascade
from calotype.config.typed_json import load_config
from calotype.emoji.editing_results import EditingResults
from calotype.emoji.measure import Effort, Measurements, measure
from calotype.emoji.naming import read_naming
from calotype.emoji.report import PROMPT_GROUPS, model_card, quick_report
from calotype.emoji.suite import SampledSuite
from calotype.emoji.sweep_results import Sweep
from calotype.errors import UsageError
from calotype.evaluation.about import About, StageFile
from calotype.evaluation.command import add_machine_options, load_cascade, run_command, say
from calotype.evaluation.retrieval import NEAREST
from calotype.evaluation.sheet import Cell, at_most, render_sheet, save_image
from calotype.runtime import Runtime, cpu_model
from calotype.storage.files import write_file
from calotype.storage.reading import read_object

_CROPS = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _run, arguments)


def write_card(
    cascade: Cascade, found: Measurements, out: Path, *, data: Path, machine: str
) -> Path:
    """Write README.md, ATTRIBUTION.md and the sheets into `out`; returns the card's path."""
    out.mkdir(parents=True, exist_ok=True)
    about = About(
        name=cascade.name,
        text_encoder=cascade.text_encoder_spec,
        stages=tuple(
            StageFile(
                stage.config,
                sum(p.numel() for p in stage.parameters()),
                cascade.weights.get(stage.config.resolution, ""),
            )
            for stage in cascade.stages
        ),
        machine=machine,
        version=calotype.__version__,
        sheets=write_sheets(found.sampled, out),
        data_recipe=read_object(data / "recipe.json"),
    )
    attribution = data / "ATTRIBUTION.md"
    if attribution.is_file():
        write_file(out / "ATTRIBUTION.md", attribution.read_bytes())
    write_file(out / "README.md", model_card(about, found).encode())
    return out / "README.md"


def write_sheets(suite: SampledSuite, out: Path) -> dict[str, str]:
    """One sheet a group for the first and the last stage, and one of crops; names by title."""
    resolutions = sorted(suite.prompts[0].images)
    files = {}
    for resolution in dict.fromkeys((resolutions[-1], resolutions[0])):
        for group, title in PROMPT_GROUPS.items():
            if suite.of(group):
                name = f"sheet-{resolution}-{group.replace('_', '-')}.jpg"
                save_image(_group_sheet(suite, group, resolution), out / name)
                files[f"{title}, {resolution}²"] = name
    if len(resolutions) > 1:
        save_image(_crop_sheet(suite), out / "sheet-enlargement.jpg")
        sides = ", ".join(f"{side}²" for side in resolutions)
        title = f"the same part at {sides}, and of the real image"
        files[title] = "sheet-enlargement.jpg"
    return files


def _group_sheet(suite: SampledSuite, group: str, resolution: int) -> Image.Image:
    side = max(128, suite.prompts[0].images[resolution].shape[-1])
    cells = [
        Cell(
            (at_most(prompt.real, resolution), prompt.images[resolution]),
            prompt.prompt.prompt,
            failed=prompt.ranks[resolution] >= NEAREST,
        )
        for prompt in suite.of(group)
    ]
    cells.sort(key=lambda cell: not cell.failed)
    return render_sheet(cells, columns=4, side=side)


def _crop_sheet(suite: SampledSuite) -> Image.Image:
    """The same part of a sample at every stage; evenly chosen among the prompts."""
    step = max(1, len(suite.prompts) // _CROPS)
    cells = [
        Cell((*(p.crops[side] for side in sorted(p.crops)), p.real_crop), p.prompt.prompt)
        for p in suite.prompts[::step][:_CROPS]
    ]
    side = max(128, min(256, max(int(p.shape[-1]) for p in cells[0].images)))
    return render_sheet(cells, columns=2, side=side)


def _run(options: argparse.Namespace) -> None:
    effort = _effort(options)
    settings = None if options.settings is None else load_config(options.settings, Sweep)
    editing = None if options.editing is None else load_config(options.editing, EditingResults)
    naming = tuple(read_naming(folder) for folder in options.naming)
    models = sorted({one.key.model for one in naming} - {"real"})
    if len(models) > 1:
        raise UsageError(f"got --naming of the models {models}; expected those of one")
    cascade, runtime = load_cascade(options)
    found = measure(cascade, options.data, options.runs, effort=effort, say=say)
    found = replace(found, settings=settings, naming=naming, editing=editing)
    if effort.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        report = quick_report(found)
        write_sheets(found.sampled, options.out)
        write_file(options.out / "quick.md", report.encode())
        print(report)
        return
    path = write_card(cascade, found, options.out, data=options.data, machine=_machine(runtime))
    say(f"wrote {path}")


def _effort(options: argparse.Namespace) -> Effort:
    for name in ("captions", "images", "sweep_captions"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"got --{flag} {getattr(options, name)}; expected at least 1")
    return Effort(
        captions=options.captions,
        weights=tuple(options.guidance),
        sweep_captions=options.sweep_captions,
        images=options.images,
        steps=tuple(options.steps),
        quick=options.quick,
    )


def _parser() -> argparse.ArgumentParser:
    defaults = Effort()
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.card",
        description="Measure a cascade on the emoji set and write its model card.",
    )
    add = parser.add_argument
    add("--model", help="cascade or run folder; default: the embedded cascade")
    add("--data", type=Path, required=True, help="folder made by: calotype data emoji")
    add("--runs", type=Path, nargs="*", default=[], help="run folders that trained the stages")
    add("--out", type=Path, required=True, help="folder for README.md and the sheets")
    add("--quick", action="store_true", help="the base alone: retrieval and its sheets")
    add("--captions", type=int, default=defaults.captions, help="random captions a group")
    add("--guidance", type=float, nargs="*", default=defaults.weights, help="weights to compare")
    add("--sweep-captions", type=int, default=defaults.sweep_captions, help="a group and weight")
    enlarged = "held-out images to enlarge"
    add("--images", "--pictures", type=int, default=defaults.images, help=enlarged)
    add("--steps", type=int, nargs="*", default=defaults.steps, help="of super-resolution, to try")
    add("--naming", type=Path, nargs="*", default=[], help="folders of scored naming sheets")
    add("--settings", type=Path, help="settings.json of calotype.emoji.settings, to print")
    add("--editing", type=Path, help="editing.json of calotype.emoji.editing, to print")
    add_machine_options(parser)
    return parser


def _machine(runtime: Runtime) -> str:
    where = cpu_model() if runtime.device == "cpu" else runtime.device
    return f"{where}, {runtime.threads} threads, {runtime.dtype} super-resolution"


if __name__ == "__main__":
    sys.exit(main())
