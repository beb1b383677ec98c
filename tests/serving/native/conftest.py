"""Clients of the native API."""

from __future__ import annotations

import httpx
import pytest


@pytest.fixture(scope="module")
def api(served):
    """A client of the module's server."""
    with httpx.Client(base_url=served, timeout=20) as client:
        yield client
