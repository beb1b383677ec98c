"""Suites that are JSON, or JSON lines: GenEval, TIFA, GenAI-Bench.

- GenEval (Ghosh et al. 2023, arXiv:2310.11513; `evaluation_metadata.jsonl`): lines with `tag`,
  `include`, `exclude`, `prompt`. Ids are the numbers of its folders of images: 00000, 00001, ...
  GenEval 2 has lines with `prompt` and others, too.
- TIFA (Hu et al. 2023, arXiv:2303.11897): a list, `tifa_v1.0_text_inputs.json` with `id` and
  `caption`, or `tifa_v1.0_question_answers.json`, an entry a question.
- GenAI-Bench (Li et al. 2024, arXiv:2406.13743; `genai_image.json`): an object with an entry a
  prompt, with `id`, `prompt`, people's ratings; its skills lie in `genai_skills.json` beside it.

COCO's annotations are JSON as well; see `coco`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from calotype.errors import UsageError
from calotype.evaluation.suites.contents import Contents, field_of, parse_json
from calotype.evaluation.suites.questions import prompts_of_questions
from calotype.evaluation.suites.suite import Prompt, row_id

_CAPTION = ("prompt", "caption", "text")
_CATEGORY = ("tag", "category")
_BROAD_SKILLS = ("advanced", "basic")


def read_lines(contents: Contents) -> tuple[Prompt, ...]:
    """The prompts of JSON lines; blank ones count for nothing.

    Raises:
        UsageError: a line is no object, or has no caption.
    """
    lines = [
        (f"{contents.path}, line {number}", line)
        for number, line in enumerate(contents.text.split("\n"), start=1)
        if line.strip()
    ]
    return tuple(
        _prompt(parse_json(line, where), row_id(row), where)
        for row, (where, line) in enumerate(lines)
    )


def read_list(entries: list[Any], contents: Contents) -> tuple[Prompt, ...]:
    """The prompts of a JSON list of captions, of objects, or of TIFA's questions.

    Raises:
        UsageError: an entry is neither, has no caption, or no id where there are questions.
    """
    places = [f"{contents.path}, entry {number}" for number in range(len(entries))]
    if entries and isinstance(entries[0], dict) and "question" in entries[0]:
        rows = [_question(*row) for row in zip(entries, places, strict=True)]
        return prompts_of_questions(rows, category=_tifa_category)
    prompts = []
    for row, (entry, where) in enumerate(zip(entries, places, strict=True)):
        if isinstance(entry, str):
            prompts.append(Prompt(row_id(row), entry))
        else:
            prompts.append(_prompt(entry, row_id(row), where))
    return tuple(prompts)


def read_object(
    entries: Mapping[str, Any], contents: Contents, skills: Mapping[str, Any]
) -> tuple[Prompt, ...]:
    """The prompts of an object with an entry each, as GenAI-Bench has.

    Args:
        entries: by id.
        contents: where they come from.
        skills: numbers of the prompts that need a skill, by the skill's name.

    Raises:
        UsageError: an entry has no caption, or the skills are no lists of numbers.
    """
    needed: dict[str, list[str]] = {}
    for skill, numbers in skills.items():
        if not isinstance(numbers, list) or not all(isinstance(n, int) for n in numbers):
            raise UsageError(
                f"the skill {skill[:80]!r} beside {contents.path} is no list of numbers; get the "
                "file again"
            )
        for number in numbers:
            needed.setdefault(row_id(number), []).append(skill)
    prompts = []
    for key, entry in entries.items():
        prompt = _prompt(entry, key, f"{contents.path}, entry {key[:80]!r}")
        if skills:
            own = needed.get(prompt.id, [])
            broad = next((skill for skill in _BROAD_SKILLS if skill in own), None)
            prompt = Prompt(prompt.id, prompt.caption, broad, {**prompt.facts, "skills": own})
        prompts.append(prompt)
    return tuple(prompts)


def _prompt(entry: Any, identity: str, where: str) -> Prompt:
    caption = _caption_field(entry, where)
    category = field_of(entry, _CATEGORY)
    own_id = field_of(entry, ("id",))
    if own_id is not None:
        identity = str(entry[own_id])
    named = category is not None and isinstance(entry[category], str)
    used = {caption, own_id, category if named else None}
    facts = {name: value for name, value in entry.items() if name not in used}
    if not named:
        return Prompt(identity, entry[caption], _tifa_category(identity), facts)
    return Prompt(identity, entry[caption], entry[category] or None, facts)


def _question(entry: Any, where: str) -> tuple[str, str, Mapping[str, Any]]:
    caption = _caption_field(entry, where)
    if "id" not in entry:
        raise UsageError(f"{where}: got a question without an id; expected that of its prompt")
    facts = {name: value for name, value in entry.items() if name not in ("id", caption)}
    return str(entry["id"]), entry[caption], facts


def _caption_field(entry: Any, where: str) -> str:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: got {type(entry).__name__}; expected an object with a prompt")
    name = field_of(entry, _CAPTION)
    if name is None or not isinstance(entry[name], str):
        raise UsageError(
            f"{where}: got the fields {', '.join(entry)[:200] or 'none'}; expected text in one of "
            f"{', '.join(_CAPTION)}"
        )
    return name


def _tifa_category(identity: str) -> str | None:
    """TIFA's ids begin with where the prompt is from: coco_301091, drawbench_52, ..."""
    found = re.fullmatch(r"(coco|drawbench|partiprompts?|paintskills?)_\w+", identity)
    return found[1] if found else None
