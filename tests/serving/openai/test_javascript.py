"""OpenAI's JavaScript client against a server with the fake engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_javascript_client(tmp_path, fake, serve_at, until, png) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed")
    flags = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(tmp_path))
    got = subprocess.run([npm, "install", *flags, "openai@7"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"npm cannot install openai: {got.stderr.strip().splitlines()[0]}")
    script = shutil.copy(Path(__file__).with_name("client.mjs"), tmp_path)
    (tmp_path / "image.png").write_bytes(png(64, 48))
    with serve_at(fake()) as (address, app):
        run = subprocess.run(
            [node, script, f"{address}/v1", str(tmp_path / "image.png")],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        until(lambda: not app.state.hub.work.active, seconds=2)
    found = json.loads(run.stdout)
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
