"""The Python that docs/serving.md shows, run as it is printed, against a server without models."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^<!-- served -->\n```python\n(.*?)^```$", re.M | re.S)


def test_the_page_shows_what_runs(served, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((ROOT / "docs/serving.md").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("http://127.0.0.1:8000", served), "page", "exec"), names)
    assert len(blocks) == 4
    for name, side in {"fox-partial_image": 512, "fox-completed": 512, "fox": 256}.items():
        assert Image.open(tmp_path / f"{name}.png").size == (side, side)
    assert names["edited"].size == "512x512"
