"""docs/http-api.md names every address of the server, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from calotype.serving.front.app import build_app
from calotype.serving.front.login import API_LOGIN, LOGIN, LOGOUT
from calotype.serving.front.settings import ServeSettings

TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
# The guard answers these and the page is files, so that no API describes them.
OTHERS = {
    "GET /",
    "GET /page/{}",
    f"GET {LOGIN}",
    *(f"POST {p}" for p in (LOGIN, LOGOUT, API_LOGIN)),
}


def _plain(request: str) -> str:
    return re.sub(r"\{\w+\}", "{}", request.partition("?")[0])


def test_every_address_is_described_and_no_other() -> None:
    paths = build_app(ServeSettings()).openapi()["paths"]
    served = {_plain(f"{method.upper()} {path}") for path in paths for method in paths[path]}
    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    told = {_plain(found) for found in re.findall(r"`((?:GET|POST|PATCH|DELETE) /[^`]*)`", rows)}
    assert len(served) > 40
    assert told == served | OTHERS
