"""What the routes say of themselves in OpenAPI holds, whatever is sent: schemathesis tries."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def described():
    """The routes' OpenAPI document, which no server publishes."""
    from fastapi.openapi.utils import get_openapi

    from calotype.serving.native.routes import router

    return get_openapi(title="calotype", version="1", routes=router.routes)


def test_all_routes_are_described(described) -> None:
    assert len(described["paths"]) == 14
    for path, operations in described["paths"].items():
        assert path.startswith("/api/v1/")
        for operation in operations.values():
            assert {"4XX", "5XX"} <= set(operation["responses"])
    body = described["paths"]["/api/v1/jobs"]["post"]["requestBody"]
    assert set(body["content"]) == {"application/json", "multipart/form-data"}


@pytest.mark.slow
def test_nothing_breaks_what_is_described(described, keeping, tried, conforming) -> None:
    import schemathesis

    address = str(keeping[0].base_url)
    modes = schemathesis.GenerationMode
    for result in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = result.ok()
        assert tried(operation, modes.POSITIVE, address, conforming)
        if list(operation.body):
            assert tried(operation, modes.NEGATIVE, address, conforming)
