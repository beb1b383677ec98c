"""What the routes say of themselves in OpenAPI holds, whatever is sent: schemathesis tries."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def described():
    """The routes' OpenAPI document, which no server publishes."""
    from fastapi.openapi.utils import get_openapi

    from calotype.serving.openai.routes import router

    return get_openapi(title="calotype", version="1", routes=router.routes)


def test_all_routes_are_described(described) -> None:
    paths = {f"/v1/{name}" for name in ("models", "models/{model_id}")}
    paths |= {f"/v1/images/{name}" for name in ("generations", "edits", "variations")}
    assert set(described["paths"]) == paths
    for path in paths:
        for operation in described["paths"][path].values():
            assert {"4XX", "5XX"} <= set(operation["responses"])


@pytest.mark.slow
def test_nothing_breaks_what_is_described(described, served, tried, conforming) -> None:
    import schemathesis
    from schemathesis.specs.openapi import checks

    modes = schemathesis.GenerationMode
    for result in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = result.ok()
        if operation.method.lower() == "get":
            assert tried(operation, modes.POSITIVE, served, conforming)
            continue
        assert tried(operation, modes.POSITIVE, served, conforming) > 15
        if "generations" in operation.path:  # in forms all is text, which may stand for numbers
            rejected = [*conforming, checks.negative_data_rejection]
        else:
            rejected = conforming
        assert tried(operation, modes.NEGATIVE, served, rejected) > 15
