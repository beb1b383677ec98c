"""Classes of images: what a source calls them, and their numbers.

A label is the name of a class. `DataConfig.labels` says where it stands: "folder" is the name of
the folder that an image lies in, whatever else is a column of a table or a field of metadata.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from calotype.config.class_names import listed, meant
from calotype.data.source import ExampleSource, Found, whole_source
from calotype.data.text import encodable
from calotype.errors import UsageError

FOLDER = "folder"
"""The value of `DataConfig.labels` for which classes are folders."""


def class_names(source: ExampleSource, labels: str) -> tuple[str, ...]:
    """The names of all classes in a source, and in what it is a part of, sorted.

    Args:
        source: of examples with labels.
        labels: where they stand, as `DataConfig.labels` says; for errors.

    Raises:
        UsageError: an image has no label, or all have the same.
    """
    whole = whole_source(source)
    names, missing = set[str](), Found()
    for index in range(len(whole)):
        label = whole.label(index)
        if label is None:
            missing.add(whole.key(index))
        else:
            names.add(label)
    if missing.count:
        raise _missing(f"{missing.count} of {len(whole)} images: {missing}", labels)
    if len(names) < 2:
        raise UsageError(
            f"got the single class {listed(sorted(names))} in the data (data.labels={labels!r}); "
            "expected at least two: give images of another, or train without classes"
        )
    return tuple(sorted(names))


def label_of(key: str, label: str | None, labels: str) -> str:
    """A label that has to be there.

    Raises:
        UsageError: it is not; the message names the image.
    """
    if label is None:
        raise _missing(key, labels)
    return label


def class_numbers(
    labels: Sequence[str], names: Sequence[str], keys: Sequence[str] = ()
) -> list[int]:
    """The numbers of labels among the names of classes.

    Args:
        labels: B names.
        names: of all classes, in the order of their numbers.
        keys: of the images, for errors.

    Raises:
        UsageError: there is no class of a name.
    """
    numbers = {name: number for number, name in enumerate(names)}
    for place, label in enumerate(labels):
        if label not in numbers:
            which = f" of {keys[place]}" if keys else ""
            raise UsageError(
                f"got the label {label!r:.80}{which}; expected one of the {len(names)} classes "
                f"that are trained: {listed(names)}; take its images away, or train anew"
                f"{meant(label, names)}"
            )
    return [numbers[label] for label in labels]


def label_text(value: Any) -> str | None:
    """What a cell or a field says as the name of a class; None where it says nothing.

    Texts lose the spaces around them; whole numbers are written out. Lists and fractions are none.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str | int):
        return None
    return encodable(str(value).strip()) or None


@functools.lru_cache(maxsize=64)
def named_numbers(note: bytes | None, column: str) -> tuple[str, ...] | None:
    """Names of a column's numbers, where `datasets` has noted them; None = they have none.

    Args:
        note: value of "huggingface" in the metadata of an Arrow schema.
        column: of class numbers.
    """
    try:
        names = json.loads(note or b"")["info"]["features"][column]["names"]
        return tuple(str(name) for name in names)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _missing(which: str, labels: str) -> UsageError:
    where = "a folder that the image lies in" if labels == FOLDER else f"a value of {labels!r}"
    return UsageError(
        f"got no label of {which} (data.labels={labels!r}); expected {where}: give it one, or take "
        "it away"
    )
