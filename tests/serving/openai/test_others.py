"""Requests as other programs send them: `bodies.json` is read from their sources."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

BODIES = json.loads(Path(__file__).with_name("bodies.json").read_text())


@pytest.mark.parametrize("sent", BODIES, ids=[one["client"] for one in BODIES])
def test_it_is_answered_as_the_client_reads_it(served, opened, png, sent) -> None:
    address = f"{served}/v1/{sent['path']}"
    if "json" in sent:
        answer = httpx.post(address, json=sent["json"], headers=sent["headers"])
        count = sent["json"]["n"]
    else:
        files = [(name, ("image.png", png(40, 30), "image/png")) for name in sent["files"]]
        answer = httpx.post(address, data=sent["form"], files=files, headers=sent["headers"])
        count = 1
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [list(opened(one["b64_json"]).size) for one in data] == [sent["size"]] * count
    assert answer.headers.get("x-ignored-params", "") == sent.get("ignored", "")


def test_clients_find_the_models(served) -> None:
    listed = httpx.get(f"{served}/v1/models", headers={"Authorization": "Bearer any"}).json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["default", "other"]
