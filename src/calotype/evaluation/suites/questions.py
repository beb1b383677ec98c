"""Suites with several questions to each prompt (TIFA, DSG): they are kept for whoever answers them.

Nothing here answers questions; `--scorer` takes a program that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from calotype.errors import UsageError
from calotype.evaluation.suites.suite import Prompt


def prompts_of_questions(
    rows: Iterable[tuple[str, str, Mapping[str, Any]]], *, category: Callable[[str], str | None]
) -> tuple[Prompt, ...]:
    """One prompt an id, in the order of their first questions.

    Args:
        rows: id, caption and question, a row a question.
        category: of a prompt, by its id.

    Raises:
        UsageError: questions with the same id and different captions.
    """
    captions: dict[str, str] = {}
    questions: dict[str, list[Mapping[str, Any]]] = {}
    for identity, caption, question in rows:
        if captions.setdefault(identity, caption) != caption:
            raise UsageError(
                f"got different captions for the questions of {identity[:80]!r}; expected one"
            )
        questions.setdefault(identity, []).append(question)
    return tuple(
        Prompt(identity, caption, category(identity), {"questions": questions[identity]})
        for identity, caption in captions.items()
    )
