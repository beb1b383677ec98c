"""The Python that docs/serving.md shows, run as it is printed, against a server."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^<!-- not run: needs a server -->\n```python\n(.*?)^```$", re.M | re.S)


def test_the_page_shows_what_runs(served, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((ROOT / "docs/serving.md").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("http://127.0.0.1:8000", served), "page", "exec"), names)
    assert len(blocks) == 3
    for name in ("fox", "fox-partial_image", "fox-completed"):
        assert Image.open(tmp_path / f"{name}.png").size == (512, 512)
    assert names["edited"].size == "512x512"
