"""Blind naming: do people who know no caption see what was asked for?

`sheets` writes numbered images and, apart from them, the key of accepted answers; readers get the
sheets alone and write what they see. `score` compares. Real images, named the same way, are the
ceiling: `--model real`.

    python -m calotype.emoji.naming sheets --model FOLDER --data EMOJI --out DIR
    python -m calotype.emoji.naming score DIR ANSWERS.json
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from calotype.config.typed_json import load_config, to_dict
from calotype.emoji.gallery import keys_at, over_background, read_images, read_rows
from calotype.emoji.prompts import COUNTS, EvaluationPrompt, ImageRow, PromptGroup, choose_prompts
from calotype.errors import UsageError
from calotype.evaluation.command import add_machine_options, load_cascade, run_command, say
from calotype.evaluation.sheet import Cell, render_sheet, save_image
from calotype.storage.files import write_file

_A_SHEET, _COLUMNS, _SIDE = 32, 8, 192
_SHEET_BYTES = 8_000_000
# A keyword that more concepts have names a kind of thing, such as "animal", and not the thing.
_OWN_CONCEPTS, _NAME_CONCEPTS = 4, 20
_COLOURS = frozenset("black blue brown green grey gray orange pink purple red white yellow".split())


@dataclass(frozen=True, kw_only=True)
class NamedImage:
    """One line of the key: what image `number` shows, and the answers that name it."""

    number: int
    key: str
    caption: str
    name: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is on the sheets. `accepted` may be edited, best before anybody has answered."""

    model: str
    group: str
    resolution: int
    seed: int
    images: tuple[NamedImage, ...]


@dataclass(frozen=True)
class Naming:
    """How many images of a key were named; a model of "real" are real images."""

    key: Key
    named: int
    images: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), lambda options: options.run(options), arguments)


def accepted_answers(rows: Sequence[ImageRow]) -> dict[str, tuple[str, ...]]:
    """The answers that name each row, by its key: the name first, then keywords.

    Keywords that at most four concepts have are synonyms. Of commoner ones those that are words of
    the name are taken ("cat" of "cat face"), unless more than twenty concepts have them ("face").
    A colour alone names nothing.
    """
    concepts = defaultdict(set)
    for row in rows:
        for keyword in row.keywords:
            concepts[keyword].add(row.concept)
    answers = {}
    for row in rows:
        own = set(_words(row.name))
        kept = [
            word
            for word in row.keywords
            if word not in _COLOURS
            and len(concepts[word])
            <= (_NAME_CONCEPTS if own.issuperset(_words(word)) else _OWN_CONCEPTS)
        ]
        answers[row.key] = tuple(dict.fromkeys([row.name, row.concept, *kept]))
    return answers


def names(answer: str, accepted: Sequence[str]) -> str | None:
    """The first accepted name that an answer contains, word by word; None if there is none.

    Upper and lower case, punctuation and the s of a plural do not count.
    """
    padded = f" {' '.join(_words(answer))} "
    for name in accepted:
        words = _words(name)
        if words and f" {' '.join(words)} " in padded:
            return name
    return None


def score(key: Key, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Compare answers, text by number, with the key; images without an answer are not named."""
    numbers = {str(image.number) for image in key.images}
    unknown = sorted(set(answers) - numbers)
    if unknown:
        raise UsageError(f"got an answer to {unknown[0]!r:.40}; expected 1 to {len(numbers)}")
    lines = []
    for image in key.images:
        answer = answers.get(str(image.number), "")
        if not isinstance(answer, str):
            raise UsageError(f"got answer {image.number}: {answer!r:.40}; expected text")
        by = names(answer, image.accepted)
        line = {"number": image.number, "answer": answer, "name": image.name, "named_by": by}
        lines.append(line)
    named = sum(line["named_by"] is not None for line in lines)
    return {"named": named, "images": len(lines), "answers": lines}


def read_naming(folder: Path) -> Naming:
    """What `score` has written into a folder.

    Raises:
        UsageError: it has not been there, or a file is damaged.
    """
    key = load_config(folder / "key.json", Key)
    try:
        found = json.loads((folder / "score.json").read_text(encoding="utf-8"))
        named, images = int(found["named"]), int(found["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"got {folder} without a readable score.json ({error}); write it with: "
            f"python -m calotype.emoji.naming score {folder} ANSWERS.json"
        ) from error
    return Naming(key, named, images)


def _words(text: str) -> list[str]:
    return [word.removesuffix("s") for word in re.findall(r"\w+", text.lower())]


def _sheets(options: argparse.Namespace) -> None:
    if options.count < 1:
        raise UsageError(f"got --count {options.count}; expected at least 1")
    rows = read_rows(options.data)
    prompts = _prompts(options, rows)
    images, model = _images(options, prompts)
    order = list(range(len(prompts)))
    random.Random(options.seed).shuffle(order)
    accepted, name_of = accepted_answers(rows), {row.key: row.name for row in rows}
    options.out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(order), _A_SHEET):
        cells = [
            Cell((images[place],), str(start + number))
            for number, place in enumerate(order[start : start + _A_SHEET], 1)
        ]
        path = options.out / f"sheet-{start // _A_SHEET + 1}.png"
        save_image(render_sheet(cells, columns=_COLUMNS, side=_SIDE), path, limit=_SHEET_BYTES)
    listed = [
        NamedImage(number=number, key=key, caption=text, name=name_of[key], accepted=accepted[key])
        for number, place in enumerate(order, 1)
        for key, text in [(prompts[place].key, prompts[place].prompt)]
    ]
    key = Key(
        model=model,
        group=options.group,
        resolution=options.resolution,
        seed=options.seed,
        images=tuple(listed),
    )
    text = json.dumps(to_dict(key), indent=2, ensure_ascii=False) + "\n"
    write_file(options.out / "key.json", text.encode())
    say(
        f"wrote {len(listed)} images and key.json into {options.out}; give readers the sheets "
        "alone, and look through `accepted` of key.json before they answer"
    )


def _prompts(options: argparse.Namespace, rows: Sequence[ImageRow]) -> list[EvaluationPrompt]:
    present = keys_at(options.data, options.resolution)
    there = [row for row in rows if row.key in present]
    chosen = choose_prompts(there, {**COUNTS, options.group: options.count})
    prompts = [prompt for prompt in chosen if prompt.group == options.group]
    if len(prompts) < options.count:
        raise UsageError(
            f"got --count {options.count}; the data has {len(prompts)} images of {options.group} "
            f"at {options.resolution} pixels: ask for no more, and at least 1"
        )
    return prompts


def _images(
    options: argparse.Namespace, prompts: Sequence[EvaluationPrompt]
) -> tuple[Sequence[Tensor], str]:
    """The images in the order of the prompts, and the name of what they come from."""
    if options.model == "real":
        colours = {prompt.key: prompt.background for prompt in prompts}
        found = {
            key: over_background(rgba, colours[key])
            for key, rgba in read_images(options.data, colours, options.resolution)
        }
        missing = [prompt.key for prompt in prompts if prompt.key not in found]
        if missing:
            raise UsageError(f"got no readable image of {missing[0]!r}; make the data again")
        return [found[prompt.key] for prompt in prompts], "real"
    cascade, _ = load_cascade(options)
    say(f"sampling {len(prompts)} images")
    sample = cascade.sample(
        [prompt.prompt for prompt in prompts],
        seeds=[options.seed + place for place in range(len(prompts))],
        stop_at=options.resolution,
    )
    return list(torch.unbind(sample.images[-1])), cascade.name


def _score(options: argparse.Namespace) -> None:
    key = load_config(options.folder / "key.json", Key)
    try:
        answers = json.loads(options.answers.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {options.answers}: {error}") from error
    if not isinstance(answers, dict):
        raise UsageError(f'got {options.answers}; expected numbers and texts: {{"1": "a cat"}}')
    found = score(key, answers)
    for line in found["answers"]:
        by, text = line["named_by"], f"{line['number']}: {line['answer'] or '(no answer)'}"
        if by is None:
            print(f"{text} – not {line['name']}")
        elif by != line["name"]:
            print(f"{text} – {line['name']}, by {by!r}")
    print(f"named {found['named']} of {found['images']} ({key.model}, {key.group})")
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    write_file(options.folder / "score.json", text.encode())
    say(
        f"wrote {options.folder / 'score.json'}; a close synonym that was missed may be added to "
        "`accepted` in key.json: say so beside the figure"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.naming",
        description="Numbered images for readers who know no caption, and what they made out.",
    )
    commands = parser.add_subparsers(required=True)
    sheets = commands.add_parser("sheets", help="write sheet-1.png … and key.json")
    add = sheets.add_argument
    add("--model", help="cascade or run folder, or `real`; default: the embedded cascade")
    add("--data", type=Path, required=True, help="folder made by: calotype data emoji")
    add("--group", choices=get_args(PromptGroup), default="trained_pair")
    add("--resolution", type=int, default=64, help="of the stage whose samples are shown")
    add("--count", type=int, default=_A_SHEET, help="images, 32 a sheet")
    add("--out", type=Path, required=True, help="folder for the sheets and the key")
    add("--seed", type=int, default=0, help="of the order; image k is sampled with SEED + k")
    add_machine_options(sheets)
    sheets.set_defaults(run=_sheets)
    compare = commands.add_parser("score", help="compare answers with the key")
    compare.add_argument("folder", type=Path, help="of key.json; score.json is written there")
    compare.add_argument("answers", type=Path, help='JSON: {"1": "a cat", …}')
    compare.set_defaults(run=_score)
    return parser


if __name__ == "__main__":
    sys.exit(main())
