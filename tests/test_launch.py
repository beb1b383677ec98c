"""The environment that training starts in."""

from __future__ import annotations

import os

import pytest

from calotype.launch import WAITING, prepare_environment


def test_threads_wait_as_decided_here_unless_the_user_has_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    prepare_environment()
    assert WAITING.items() <= os.environ.items()
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and "GOMP_SPINCOUNT" not in os.environ
