"""Read a suite from the user's file or folder, whatever its form; nothing is downloaded.

What a file is is told by its name's ending and by what is in it: see `tables`, `records`, `coco`.
Text files have a caption a line; T2I-CompBench (Huang et al. 2023, arXiv:2307.06350) is a folder
of such files, a category each.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from calotype.errors import UsageError
from calotype.evaluation.suites.coco import CocoChoices, coco_suite, is_coco
from calotype.evaluation.suites.contents import Contents, read_contents
from calotype.evaluation.suites.records import read_lines, read_list, read_object
from calotype.evaluation.suites.suite import Prompt, Suite, row_id
from calotype.evaluation.suites.tables import looks_like_table, read_table

SKILLS = "genai_skills.json"
_COMPBENCH = re.compile(
    r"(color|shape|texture|(3d_|non_)?spatial|numeracy|complex|new_objects)(_(train|val)\w*)?"
)
_ENDINGS = {".txt": "text", ".jsonl": "JSON lines", ".csv": "table", ".tsv": "table"}
_NAMES = {"evaluation_metadata": "geneval", "genai_image": "genai-bench"}


def read_suite(path: Path, *, name: str | None = None) -> Suite:
    """A suite from a file, or from a folder of text files.

    Args:
        path: of DrawBench, PartiPrompts, GenEval, T2I-CompBench, DSG, TIFA, GenAI-Bench, COCO's
            captions (30,000 of them: COCO-30K), or a text file with a caption a line.
        name: shown with the results; None = made of the file's name.

    Raises:
        UsageError: the file cannot be read, or is no suite.
    """
    if path.is_dir():
        return _read_folder(path, name or path.resolve().name)
    contents = read_contents(path)
    form = _form(contents)
    if form == "JSON":
        return _read_json(contents, name)
    name = name or _NAMES.get(path.stem, path.stem)
    read = {"JSON lines": read_lines, "table": read_table, "text": read_text}[form]
    return Suite(name, read(contents), contents.sha256, {"format": form})


def read_text(contents: Contents, *, within_folder: bool = False) -> tuple[Prompt, ...]:
    """A caption a line; only line feeds end one, blank lines count for nothing.

    Args:
        contents: the file.
        within_folder: the file is one of several: its name is the category, and part of the ids.
    """
    stem = contents.path.stem
    category = stem if within_folder or _COMPBENCH.fullmatch(stem) else None
    prefix = f"{stem}-" if within_folder else ""
    lines = (line.rstrip("\r") for line in contents.text.split("\n"))
    captions = [line for line in lines if line.strip()]
    return tuple(
        Prompt(f"{prefix}{row_id(row)}", caption, category) for row, caption in enumerate(captions)
    )


def _form(contents: Contents) -> str:
    ending = contents.path.suffix.lower()
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    begin = contents.text.lstrip()
    if ending != ".json" and not begin.startswith(("{", "[")):
        return "table" if looks_like_table(contents.text) else "text"
    first, _, rest = begin.partition("\n")
    try:  # a whole object in the first line, and more below, are JSON lines
        return "JSON lines" if isinstance(json.loads(first), dict) and rest.strip() else "JSON"
    except (ValueError, RecursionError):
        return "JSON"


def _read_json(contents: Contents, name: str | None) -> Suite:
    data = contents.json()
    if is_coco(data):
        suite = coco_suite(data, contents, CocoChoices()).suite
        return suite if name is None else replace(suite, name=name)
    name = name or _NAMES.get(contents.path.stem, contents.path.stem)
    choices = {"format": "JSON"}
    if isinstance(data, list):
        return Suite(name, read_list(data, contents), contents.sha256, choices)
    if not isinstance(data, dict):
        raise UsageError(f"{contents.path} holds no list and no object; expected prompts")
    beside = contents.path.with_name(SKILLS)
    if contents.path.name == beside.name or not beside.is_file():
        return Suite(name, read_object(data, contents, {}), contents.sha256, choices)
    skills = read_contents(beside)
    prompts = read_object(data, contents, _object(skills))
    return Suite(name, prompts, _sha256_of([contents, skills]), {**choices, "skills": SKILLS})


def _object(contents: Contents) -> dict[str, Any]:
    data = contents.json()
    if not isinstance(data, dict):
        raise UsageError(f"{contents.path} holds no object; get the file again, or remove it")
    return data


def _read_folder(folder: Path, name: str) -> Suite:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise UsageError(f"{folder} holds no text files; expected *.txt with a caption a line")
    # T2I-CompBench measures on its validation prompts; its folder holds the others, too.
    files = [file for file in files if file.stem.endswith("_val")] or files
    read = [read_contents(file) for file in files]
    prompts = [prompt for one in read for prompt in read_text(one, within_folder=True)]
    choices = {"format": "text", "files": [file.name for file in files]}
    return Suite(name, tuple(prompts), _sha256_of(read), choices)


def _sha256_of(files: list[Contents]) -> str:
    """One hash of several files' names and hashes."""
    lines = "".join(f"{file.sha256}  {file.path.name}\n" for file in files)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
