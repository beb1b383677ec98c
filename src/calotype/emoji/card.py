"""Write a cascade's model card: `calotype evaluate --card`.

Everything the card prints is measured here and now, or read from what was made before: the runs
that trained the cascade, naming sheets, edits. What is not there is said to be not available.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

import calotype
from calotype.cascade import Cascade
from calotype.config.typed_json import load_config
from calotype.emoji.editing_results import EditingResults
from calotype.emoji.measure import Effort, Measurements, measure
from calotype.emoji.naming import Naming, read_naming
from calotype.emoji.report import PROMPT_GROUPS, model_card
from calotype.emoji.suite import SampledSuite
from calotype.errors import UsageError
from calotype.evaluation.about import About, StageFile
from calotype.evaluation.results import Results
from calotype.evaluation.retrieval import NEAREST
from calotype.evaluation.sheet import Cell, at_most, render_sheet, save_image
from calotype.evaluation.sweep.found import SWEEP_FILE, SweepResults
from calotype.runtime import Runtime, cpu_model
from calotype.storage.files import write_file
from calotype.storage.reading import read_object
from calotype.text.tokenizer_folder import shown_spec

_CROPS = 16
_CHARTS = {
    "kid-alignment": "CLIP score against KID",
    "kid-r-precision": "R-precision against KID",
    "recall-precision": "precision against recall",
}


@dataclass(frozen=True)
class CardParts:
    """What is printed on a card, and was made before: runs, scored naming sheets, edits."""

    runs: tuple[Path, ...] = ()
    naming: tuple[Naming, ...] = ()
    editing: EditingResults | None = None


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """Of what a card is made, beside the cascade.

    Args:
        data: folder of the emoji set.
        machine: in words.
        parts: what was made before.
        sweep: folder of the sweep whose curves it shows; None = there are none.
        effort: how much is measured.
    """

    data: Path
    machine: str
    parts: CardParts = field(default_factory=CardParts)
    sweep: Path | None = None
    effort: Effort = field(default_factory=Effort)


def read_parts(paths: Sequence[Path]) -> CardParts:
    """Runs that trained stages, folders that naming scored, and `editing.json`, by what they hold.

    Raises:
        UsageError: a path holds none of these, or sheets are of several models.
    """
    runs, naming, editing = [], [], None
    for path in paths:
        if (path / "key.json").is_file():
            naming.append(read_naming(path))
        elif (path / "recipe.json").is_file():
            runs.append(path)
        elif path.suffix == ".json":
            editing = load_config(path, EditingResults)
        else:
            raise UsageError(
                f"got {path} for the card; expected the folder of a run, a folder of scored naming "
                "sheets, or the editing.json of calotype.emoji.editing"
            )
    models = sorted({one.key.model for one in naming} - {"real"})
    if len(models) > 1:
        raise UsageError(f"got naming sheets of the models {models}; expected those of one")
    return CardParts(tuple(runs), tuple(naming), editing)


def renew_card(
    out: Path,
    cascade: Cascade,
    evaluation: Results,
    options: CardOptions,
    *,
    say: Callable[[str], None] = print,
) -> Path:
    """Measure what a card has beside an evaluation of a cascade, and write it; its path."""
    parts = options.parts
    found = measure(cascade, options.data, parts.runs, effort=options.effort, say=say)
    found = replace(found, evaluation=evaluation, naming=parts.naming, editing=parts.editing)
    if options.sweep is not None:
        found = replace(found, sweep=load_config(options.sweep / SWEEP_FILE, SweepResults))
    return write_card(cascade, found, out, options)


def write_card(cascade: Cascade, found: Measurements, out: Path, options: CardOptions) -> Path:
    """Write README.md, ATTRIBUTION.md and the sheets into `out`; returns the card's path."""
    out.mkdir(parents=True, exist_ok=True)
    about = About(
        name=cascade.name,
        text_encoder=shown_spec(cascade.text_encoder_spec),
        stages=tuple(
            StageFile(
                stage.config,
                sum(p.numel() for p in stage.parameters()),
                cascade.weights.get(stage.config.resolution, ""),
            )
            for stage in cascade.stages
        ),
        machine=options.machine,
        version=calotype.__version__,
        sheets=write_sheets(found.sampled, out),
        data_recipe=read_object(options.data / "recipe.json"),
        charts={} if options.sweep is None else _copy_charts(options.sweep, out),
    )
    attribution = options.data / "ATTRIBUTION.md"
    if attribution.is_file():
        write_file(out / "ATTRIBUTION.md", attribution.read_bytes())
    write_file(out / "README.md", model_card(about, found).encode())
    return out / "README.md"


def _copy_charts(sweep: Path, out: Path) -> dict[str, str]:
    """The card's charts, copied beside it: file names by what they show."""
    charts = {}
    for name, title in _CHARTS.items():
        chart = sweep / f"{name}.png"
        if chart.is_file():
            write_file(out / f"chart-{name}.png", chart.read_bytes())
            charts[title] = f"chart-{name}.png"
    return charts


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


def machine_of(runtime: Runtime) -> str:
    """The machine, in words."""
    where = cpu_model() if runtime.device == "cpu" else runtime.device
    return f"{where}, {runtime.threads} threads, {runtime.dtype} super-resolution"
