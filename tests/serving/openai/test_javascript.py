"""OpenAI's JavaScript client against a server with the fake engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHOWN = re.compile(r"^```text\n(import OpenAI .*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where OpenAI's package is installed."""
    found: Path = tmp_path_factory.mktemp("javascript")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm and node are not installed")
    flags = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(found))
    got = subprocess.run([npm, "install", *flags, "openai@7"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"npm cannot install openai: {got.stderr.strip().splitlines()[0]}")
    return found


def run_node(script: Path, *arguments: str) -> str:
    run = subprocess.run(["node", script, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_what_the_page_shows(folder, served) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (shown,) = SHOWN.findall(page)
    script = folder / "shown.mjs"
    script.write_text(shown.replace("http://127.0.0.1:8000", served) + "console.log(data.length);")
    assert run_node(script) == "1\n"


@pytest.mark.slow
def test_the_javascript_client(folder, fake, serve_at, until, png) -> None:
    script = Path(shutil.copy(Path(__file__).with_name("client.mjs"), folder))
    (folder / "image.png").write_bytes(png(64, 48))
    with serve_at(fake()) as (address, app):
        answered = run_node(script, f"{address}/v1", str(folder / "image.png"))
        until(lambda: not app.state.hub.work.active, seconds=2)
    found = json.loads(answered)
    assert found["images"] == ["iVBORw0K"] * 2 and found["size"] == "96x64"
    assert found["seeds"] == "9007199254740993"
    assert found["events"] == ["image_generation.partial_image"] * 2 + [
        "image_generation.completed"
    ]
    assert found["edited"] == "64x48" and found["several"] == 2
    assert found["error"] == [400, "n", "invalid_request_error", True]
    assert "memory is out" in found["failed"]
    assert found["aborted"] == "image_generation.partial_image"
    assert found["models"] == ["default", "other"]
