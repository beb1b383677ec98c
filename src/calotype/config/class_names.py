"""Names of classes that a user gives, and what errors say of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from calotype.errors import UsageError

_NAMED = 8


def check_class(name: str, known: Sequence[str], whose: str) -> None:
    """Refuse the name of a class that nobody trained, and say which is meant perhaps.

    Args:
        name: as it was given.
        known: the classes that there are.
        whose: who was trained with them, such as "the 64 stage".

    Raises:
        UsageError: it is none of those that are known.
    """
    if name not in known:
        raise UsageError(
            f"got the class {name!r:.80}, which {whose} was not trained with; expected one of its "
            f"{len(known)}: {listed(known)}{meant(name, known)}"
        )


def listed(names: Sequence[str]) -> str:
    """The first names, in quotes."""
    shown = [f"{name!r:.60}" for name in names[:_NAMED]]
    return ", ".join([*shown, *(["..."] if len(names) > _NAMED else [])])


def meant(name: str, known: Sequence[str]) -> str:
    """The end of an error: which name is meant perhaps; "" = none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r:.80}?" if near else ""
