"""Each promise of SECURITY.md names tests that exist, and each threat has its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]*test_\w+\.py(?:::\w+)?)`", TEXT)))


def _tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 50
    for named in NAMED:
        path, _, name = named.partition("::")
        assert (ROOT / path).is_file(), named
        assert not name or name in _tests(ROOT / path), named


def test_every_promise_names_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| promise", "| | threat"))]
    assert len(rows) > 50
    for row in rows:
        cells = row.strip("| ").split(" | ")
        assert "`tests/" in cells[-1], row


def test_threats_are_numbered_through() -> None:
    numbers = [int(found) for found in re.findall(r"^\| S(\d+) \|", TEXT, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 30
