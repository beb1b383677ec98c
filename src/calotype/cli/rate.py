"""`calotype rate`: people judge images; making a study, serving its pages, reporting."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from calotype.cli.options import Json
from calotype.cli.visible import visible
from calotype.errors import UsageError

if TYPE_CHECKING:
    from calotype.evaluation.rating.sides import BestOf
    from calotype.evaluation.rating.study import Study as Planned

_HELP = "People judge images: make a study, serve its pages, report."
app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)

Study = Annotated[Path, Argument(help="Folder of the study.")]


@app.callback()
def rate() -> None:
    """People judge images: make a study, serve its pages, report."""


@app.command()
def new(
    study: Annotated[Path, Argument(help="Folder of the study, to be made.")],
    protocol: Annotated[
        str, Option(help="drawbench (two sets, 8 images each: quality, then alignment), realism "
        "(against --reference), caption (yes, somewhat, no) or elo (pairs of any sets).")
    ],
    sets: Annotated[
        list[str],
        Option("--set", help="NAME=DIR, a set of samples and its name in the report. Repeat it."),
    ],
    reference: Annotated[
        Path | None, Option(help="A set of real images of the same prompts.")
    ] = None,
    suite: Annotated[
        Path | None, Option(help="The prompts, where a DIR is a plain folder of images.")
    ] = None,
    seed: Annotated[int, Option(help="Of the order of trials and sides.")] = 0,
    raters: Annotated[
        int | None,
        Option(help="Raters for each trial; 25 for drawbench, else 5, if not given."),
    ] = None,
    per_rater: Annotated[
        int | None,
        Option(
            help="Most trials one rater is asked, controls aside; if not given, a category of "
            "drawbench, or all."
        ),
    ] = None,
    images: Annotated[
        int | None, Option(help="Images a side; 8 for drawbench, else 1, if not given.")
    ] = None,
    size: Annotated[
        int | None, Option(help="Size of all images in pixels; the smallest set's if not given.")
    ] = None,
    best_of: Annotated[
        list[str] | None,
        Option(
            "--best-of",
            help="NAME=K:SCORER:FILE: of each K samples of a set show the one that the scorer "
            'likes best; FILE has lines {"key": ..., "score": ...}.',
        ),
    ] = None,
    transform: Annotated[
        list[str] | None,
        Option(help="NAME=jpeg:QUALITY, NAME=blur:PIXELS or NAME=shrink:FACTOR, done to a set."),
    ] = None,
    common: Annotated[
        bool, Option("--common", help="Leave out prompts that not all sets have.")
    ] = False,
    split_people: Annotated[
        bool,
        Option("--split-people", help="Report captions that name people apart from all others."),
    ] = False,
    title: Annotated[str, Option(help="What raters read first.")] = "Which images are better?",
    consent: Annotated[
        Path | None, Option(help="Text file that raters agree to, instead of calotype's.")
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Make a study: blind images, and which trials are asked until when."""
    from calotype.evaluation.rating.new import create_study
    from calotype.evaluation.rating.power import judgements_needed
    from calotype.evaluation.rating.wanted import Wanted

    judgements_needed(0.6)  # a missing package is told before anything is made

    wanted = Wanted(
        protocol=protocol,
        sets={name: Path(folder) for name, folder in _named(sets, "--set NAME=DIR").items()},
        reference=reference,
        suite=suite,
        seed=seed,
        raters=raters,
        per_rater=per_rater,
        images=images,
        size=size,
        best_of={
            name: _best_of(text) for name, text in _named(best_of, "--best-of NAME=...").items()
        },
        transforms=_named(transform, "--transform NAME=..."),
        common=common,
        split_people=split_people,
        title=title,
        consent=None if consent is None else _text(consent),
    )
    _say_made(study, create_study(study, wanted), as_json=as_json)


@app.command()
def serve(
    study: Study,
    host: Annotated[str, Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, Option(help="Port; 0 takes a free one.")] = 8000,
    public_url: Annotated[
        str | None,
        Option(help="What raters open, such as https://rate.example.org of a reverse proxy."),
    ] = None,
    tokens: Annotated[
        bool, Option("--tokens", help="Raters need links on this machine, too.")
    ] = False,
    invite: Annotated[int, Option(help="Print links for so many more raters.")] = 0,
    common_link: Annotated[
        bool,
        Option("--common-link", help="Print one link for all; add ?pid=ID to it from a market."),
    ] = False,
    completion_code: Annotated[
        str | None, Option(help="Shown at the end to all; each has their own if not given.")
    ] = None,
) -> None:
    """Serve a study's pages until Ctrl-C; on this machine alone, if nothing else is said."""
    from calotype.evaluation.rating.server.serve import ServeOptions, serve

    options = ServeOptions(
        host=host,
        port=port,
        public_url=public_url,
        needs_tokens=tokens,
        invite=invite,
        is_common=common_link,
        completion_code=completion_code,
    )
    serve(study, options, lambda line: print(line, flush=True))


def _say_made(folder: Path, made: Planned, *, as_json: bool) -> None:
    from calotype.evaluation.rating.plan import needed

    found = needed(made)
    facts = {
        "study": str(folder),
        "trials": len(made.real),
        "controls": len(made.trials) - len(made.real),
        "raters": made.raters,
        "planned": made.planned,
        "needed": {f"{one.rate:.0%}": one.clustered for one in found},
        "sha256": made.sha256,
    }
    if as_json:
        print(json.dumps(facts))
        return
    print(
        f"{visible(str(folder))}: {facts['trials']} trials and {facts['controls']} for control, "
        f"{len(made.images)} images of {made.side_pixels} px; {made.condition}"
    )
    print(f"planned: {made.raters} raters a trial, {made.planned:,} judgements of each question")
    for one in found:
        print(
            f"  a preference of {one.rate:.0%} needs {one.independent:,} if independent, "
            f"{one.clustered:,} of these raters and prompts"
            + ("" if made.planned >= one.clustered else ": more than planned")
        )
    print(f"plan {made.sha256:.12}; it is frozen with the first answer")
    print(f"next: calotype rate serve {visible(str(folder))}")


@app.command()
def report(
    study: Study,
    out: Annotated[
        Path | None, Option("-o", "--out", help="Folder of the report; STUDY/report if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what a study's raters prefer, and how sure that is, as a page and as JSON."""
    from calotype.evaluation.rating.records import read_results
    from calotype.evaluation.rating.report import write_report

    folder = study / "report" if out is None else out
    found = write_report(read_results(study), folder)
    page = folder / "report.html"
    if as_json:
        verdicts = [dataclasses.asdict(one) for one in found.kept.verdicts]
        print(json.dumps({"file": str(page), "verdicts": verdicts, "left_out": found.left_out}))
        return
    for verdict in found.kept.verdicts:
        print(visible(verdict.sentence))
    if found.left_out:
        print(f"left out for their control trials: {len(found.left_out)} of {len(found.controls)}")
    print(f"{visible(str(page))}: open it in a browser")


def _named(texts: list[str] | None, expected: str) -> dict[str, str]:
    """Options NAME=VALUE by name."""
    found: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"got {text!r}; expected {expected}")
        if name in found:
            raise UsageError(f"got {name!r} twice; expected {expected} once for each name")
        found[name] = value
    return found


def _best_of(text: str) -> BestOf:
    from calotype.evaluation.rating.sides import BestOf

    count, _, rest = text.partition(":")
    scorer, _, path = rest.partition(":")
    if not (count.isascii() and count.isdigit() and len(count) < 7 and scorer and path):
        raise UsageError(
            f"got --best-of {text!r}; expected NAME=K:SCORER:FILE, as a=8:clip:s.jsonl"
        )
    return BestOf(int(count), scorer, Path(path))


def _text(path: Path) -> str:
    from calotype.storage.reading import read_regular

    try:
        return read_regular(path, most_bytes=100_000).decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; expected a short text file") from error
