"""What the server says of itself, with the fake engine."""

from __future__ import annotations

import os

from calotype.emoji.captions import BACKGROUND_COLOURS, on_background


def test_capabilities_are_the_engines_and_the_limits(api) -> None:
    found = api.get("/api/v1/capabilities").json()
    assert [one["name"] for one in found["models"]] == ["default", "other"]
    assert found["samplers"] == ["ddpm", "ddim", "dpmpp_2m"]
    assert found["sizes"] == [64, 128, 256, 512, 1024]
    assert found["limits"]["n"] == 32 and found["limits"]["side"] == [16, 2048]
    assert found["limits"]["seed_text"] == str(2**63 - 1)
    assert found["keys"] is False


def test_chips_are_words_of_the_embedded_models_captions(api) -> None:
    found = api.get("/api/v1/capabilities").json()
    assert "noto style" in found["styles"] and len(found["styles"]) == 5
    for chip in found["backgrounds"]:
        assert tuple(chip["rgb"]) == BACKGROUND_COLOURS[chip["name"]]
        assert chip["name"] in on_background("a fox", chip["name"])


def test_other_models_have_no_chips(fake, serve_at) -> None:
    import httpx

    with serve_at(fake(models=("mine=somewhere",))) as (address, _):
        found = httpx.get(f"{address}/api/v1/capabilities").json()
    assert found["styles"] == [] and found["backgrounds"] == []


def test_status_tells_engine_queue_and_store(api) -> None:
    found = api.get("/api/v1/status").json()
    assert found["engine"]["state"] == "ready" and found["engine"]["restarts"] == 0
    os.kill(found["engine"]["pid"], 0)  # it is a process
    assert found["queue"] == {"waiting": 0, "active": 0, "capacity": 64}
    assert found["kept"] == "page" and found["keeping"] is False and found["store"] == "none"
    assert found["draining"] is False
    assert found["engine"]["device"] == "cpu"


def test_status_tells_why_nothing_is_kept(keeping, fake, serve_at, tmp_path, monkeypatch) -> None:
    import httpx

    from calotype.serving.front import store

    def told(found):
        return found["kept"], found["keeping"], found["store"]

    def full(*_, **__):
        raise store.NoRoom("the disk is full")

    assert told(keeping[0].get("/api/v1/status").json()) == ("page", True, "open")
    with serve_at(fake(data=tmp_path, keep="none")) as (address, app):
        assert told(httpx.get(f"{address}/api/v1/status").json()) == ("none", False, "open")
        app.state.hub.store.is_keeping = False
        assert told(httpx.get(f"{address}/api/v1/status").json()) == ("none", False, "failing")
    monkeypatch.setattr(store.Store, "__init__", full)
    with serve_at(fake(data=tmp_path)) as (address, _):
        assert told(httpx.get(f"{address}/api/v1/status").json()) == ("page", False, "unopened")
