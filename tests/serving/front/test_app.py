"""The application: health, errors' shapes, and that no torch comes with it."""

from __future__ import annotations

import subprocess
import sys

import httpx


def test_it_is_healthy_and_ready(client, served) -> None:
    assert client.get("/healthz").text == "ok\n"
    assert httpx.get(f"{served}/readyz").status_code == 200


def test_the_frameworks_errors_have_the_apis_shape(client) -> None:
    missing = client.get("/v1/nothing")
    assert missing.status_code == 404
    assert set(missing.json()["error"]) == {"message", "type", "param", "code"}
    assert missing.headers["x-should-retry"] == "false"
    wrong = client.post("/healthz")
    assert wrong.status_code == 405 and wrong.json()["error"]["type"] == "invalid_request_error"


def test_the_front_loads_no_torch() -> None:
    code = "import sys, calotype.serving.front.app; print('torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["False"]
