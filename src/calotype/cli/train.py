"""`calotype train` and `calotype assemble`: recipes to runs, runs to a cascade."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from calotype.cli import options as shared
from calotype.cli import train_options as own
from calotype.errors import CalotypeError, UsageError

if TYPE_CHECKING:
    from calotype.config.recipe import Recipe
    from calotype.runtime import Runtime

_PARALLEL = ("data", "sharded", "stages")


def train(
    recipe: own.Recipe,
    data: own.Data = None,
    out: own.Out = None,
    images: own.Images = None,
    seed: own.Seed = None,
    resume: own.Resume = False,
    init: own.Init = None,
    settings: own.Settings = None,
    only: own.Only = None,
    dry_run: own.DryRun = False,
    allow_inexact_resume: own.AllowInexactResume = False,
    start_over: own.StartOver = False,
    missing_captions: own.MissingCaptions = False,
    parallel: own.Parallel = "data",
    as_json: own.Json = False,
    quiet: own.Quiet = False,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
) -> None:
    """Train the stages of a recipe; Ctrl-C writes a checkpoint, and --resume resumes exactly."""
    from calotype.launch import prepare_environment
    from calotype.training.recipes import load_recipe

    prepare_environment()
    with _errors_of_rank_0():
        chosen = override_recipe(load_recipe(recipe), settings or [])
        if parallel not in _PARALLEL:
            raise UsageError(f"got --parallel {parallel!r}; expected one of {list(_PARALLEL)}")
        if only not in (None, "draft"):
            raise UsageError(f"got --only {only!r:.80}; expected 'draft'")
        if start_over and not resume:
            raise UsageError("got --start-over without --resume; expected both, or neither")
        if images is not None and images < 1:
            raise UsageError(f"got --images {images}; expected at least 1")
        if dry_run:
            from calotype.runtime import choose_runtime
            from calotype.training.resume import with_options

            chosen = with_options(chosen, images=images, seed=seed)
            _print_dry_run(chosen, choose_runtime(device, dtype, threads), as_json=as_json)
            return
        data, out = _checked_places(recipe, data, out, resume=resume)
    from calotype.emoji.captions import GRAMMAR
    from calotype.tasks.factory import Tasks
    from calotype.tasks.stage_processes import run_stages
    from calotype.training.run import RunOptions, run_recipe

    options = RunOptions(
        resume=resume,
        images=images,
        seed=seed,
        init=init,
        device=device,
        dtype=dtype,
        threads=threads,
        quiet=quiet,
        allow_inexact_resume=allow_inexact_resume,
        start_over=start_over,
        sharded=parallel == "sharded",
        only_draft=only == "draft",
        missing_captions=missing_captions,
    )
    run = run_stages if parallel == "stages" else run_recipe
    code = run(chosen, data=data, out=out, options=options, tasks=Tasks(GRAMMAR))
    if code != 0:
        raise typer.Exit(code)


def _checked_places(
    recipe: str, data: Path | None, out: Path | None, *, resume: bool
) -> tuple[Path, Path]:
    """The data and the run's folder."""
    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"got no {missing}; expected calotype train RECIPE --data DIR --out RUN")
    if not resume and Path(recipe).is_file() and Path(recipe).resolve().parent == out.resolve():
        raise UsageError(
            f"got --out {out}, the folder of the recipe {recipe} itself; expected another: a "
            "run writes a recipe.json of its own"
        )
    if not (data.is_dir() or data.is_file()):
        raise UsageError(f"got --data {data}, which is missing; expected images or shards")
    return data, out


@contextmanager
def _errors_of_rank_0() -> Iterator[None]:
    """Of several processes that were started with the same mistake, let rank 0 report it."""
    try:
        yield
    except CalotypeError as error:
        from calotype.launch import launched_place
        from calotype.training.distributed import let_other_report

        if launched_place().rank == 0:
            raise
        let_other_report()
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error


def override_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply `key=value` settings: to every stage, or to one as `stages.0.key=value`."""
    from calotype.config.typed_json import override

    whole = [text for text in settings if text.startswith(("stages.", "name=", "note="))]
    each = [text for text in settings if text not in whole]
    if each:
        stages = tuple(override(stage, each) for stage in recipe.stages)
        recipe = dataclasses.replace(recipe, stages=stages)
    return override(recipe, whole) if whole else recipe


def _print_dry_run(recipe: Recipe, runtime: Runtime, *, as_json: bool) -> None:
    from calotype.tasks.dry_run import dry_run

    rows = [dataclasses.asdict(row) for row in dry_run(recipe, runtime)]
    if as_json:
        print(json.dumps(rows))
        return
    width = max(len(key) for row in rows for key in row)
    for row in rows:
        for key, value in row.items():
            print(f"{key.replace('_', ' '):>{width}}  {_readable(value)}")
        print()


def _readable(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def assemble(
    runs: Annotated[list[Path], Argument(help="Runs, from the base to the finest stage.")],
    out: Annotated[Path, Option("-o", "--out", help="Cascade folder to write.")],
    name: Annotated[str | None, Option(help="Name of the cascade.")] = None,
    dtype: Annotated[str, Option(help="float16 or float32 weights in the files.")] = "float16",
) -> None:
    """Join the averaged weights of runs into one cascade."""
    import torch

    from calotype.tasks.assemble import assemble as join

    kinds = {"float16": torch.float16, "float32": torch.float32}
    if dtype not in kinds:
        raise UsageError(f"got dtype {dtype!r}; expected one of {list(kinds)}")
    if not out.resolve().parent.is_dir():
        raise UsageError(f"the folder {out.parent} of the output is missing; make it first")
    print(join(runs, out, name=out.name if name is None else name, dtype=kinds[dtype]))
