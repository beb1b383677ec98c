"""`calotype train` and `calotype assemble`: recipes to runs, runs to a cascade."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.options import Device, Dtype, Threads
from calotype.errors import CalotypeError, UsageError

if TYPE_CHECKING:
    from calotype.config.recipe import Recipe
    from calotype.runtime import Runtime

_PARALLEL = ("data", "sharded", "stages")


def train(
    recipe: Annotated[str, typer.Argument(help="Name of an installed recipe, or a JSON file.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of images or Parquet shards.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the run.", show_default=False)
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Length of the run in images, per stage.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: a file, a stage's folder, a cascade, a run or 'default'."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, e.g. optimizer.learning_rate=1e-3."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="'draft': train the base's draft alone, e.g. anew with --init."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print cost and memory, train nothing.")
    ] = False,
    allow_inexact_resume: Annotated[
        bool, typer.Option("--allow-inexact-resume", help="Resume on a different machine.")
    ] = False,
    start_over: Annotated[
        bool, typer.Option("--start-over", help="With --resume: begin anew if no checkpoint fits.")
    ] = False,
    missing_captions: Annotated[
        bool,
        typer.Option(
            "--missing-captions", help="Train although most images have lost their captions."
        ),
    ] = False,
    parallel: Annotated[
        str,
        typer.Option(
            help="How processes started by torchrun share the work: 'data' (each stage by all, "
            "a copy each), 'sharded' (each stage by all, in shards) or 'stages' (each its own)."
        ),
    ] = "data",
    as_json: Annotated[bool, typer.Option("--json", help="Print the dry run as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Train the stages of a recipe; Ctrl-C writes a checkpoint, --resume goes on exactly."""
    from calotype.training.environment import prepare_environment
    from calotype.training.recipes import load_recipe

    prepare_environment()
    with _told_by_first_process():
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

            runtime = choose_runtime(device, dtype, threads)
            chosen = with_options(chosen, images=images, seed=seed)
            _print_dry_run(chosen, runtime, as_json=as_json)
            return
        if data is None or out is None:
            missing = "--data" if data is None else "--out"
            raise UsageError(
                f"got no {missing}; expected calotype train RECIPE --data DIR --out RUN"
            )
        if not resume and Path(recipe).is_file() and Path(recipe).resolve().parent == out.resolve():
            raise UsageError(
                f"got --out {out}, the folder of the recipe {recipe} itself; expected another: a "
                "run writes a recipe.json of its own"
            )
        if not (data.is_dir() or data.is_file()):
            raise UsageError(f"got --data {data}, which is missing; expected images or shards")
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
    if parallel == "stages":
        code = run_stages(chosen, data=data, out=out, options=options)
    else:
        code = run_recipe(chosen, data=data, out=out, options=options, tasks=Tasks())
    if code != 0:
        raise typer.Exit(code)


@contextmanager
def _told_by_first_process() -> Iterator[None]:
    """Of several processes that were started with the same mistake, let one tell of it."""
    try:
        yield
    except CalotypeError as error:
        from calotype.launch import launched_place
        from calotype.training.distributed import let_other_tell

        if launched_place().rank == 0:
            raise
        let_other_tell()
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
    runs: Annotated[list[Path], typer.Argument(help="Runs, from the base to the finest stage.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Cascade folder to write.")],
    name: Annotated[str | None, typer.Option(help="Name of the cascade.")] = None,
    dtype: Annotated[
        str, typer.Option(help="float16 or float32 weights in the files.")
    ] = "float16",
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
