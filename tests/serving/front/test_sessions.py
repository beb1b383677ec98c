"""How a server joins Ray."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from calotype.errors import CalotypeError
from calotype.serving.front import sessions
from calotype.serving.front.settings import ServeSettings


@pytest.mark.parametrize(("address", "mode"), [("local", "token"), ("ray://10.0.0.1:10001", None)])
def test_a_local_ray_takes_nobody_without_its_token(monkeypatch, address, mode) -> None:
    """Of another cluster the token is its own: what the environment says is left as it is."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    seen = {}

    @contextmanager
    def connected(*_, **__):
        seen.update({name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")})
        raise CalotypeError("far enough")
        yield

    monkeypatch.setattr(sessions, "connected", connected)
    with pytest.raises(CalotypeError, match="far enough"):
        sessions.Cluster(ServeSettings(ray=address), ["engine"]).open()
    assert seen["RAY_AUTH_MODE"] == mode
    assert (seen["RAY_AUTH_TOKEN"] is None) == (mode is None)
    if mode is not None:
        assert len(seen["RAY_AUTH_TOKEN"]) == 64
