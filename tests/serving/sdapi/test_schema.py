"""What the routes say of themselves in OpenAPI holds, whatever is sent: schemathesis tries."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def described():
    """The routes' OpenAPI document, which no server publishes."""
    from fastapi.openapi.utils import get_openapi

    from calotype.serving.front.app import SDAPI

    routes = [route for router in SDAPI for route in router.routes]
    return get_openapi(title="calotype", version="1", routes=routes)


def test_all_routes_are_described(described) -> None:
    names = "txt2img img2img extra-single-image png-info progress interrupt skip options sd-models"
    names += " samplers schedulers upscalers latent-upscale-modes sd-vae loras embeddings scripts"
    names += " cmd-flags memory"
    assert {f"/sdapi/v1/{name}" for name in names.split()} <= set(described["paths"])
    for path in described["paths"].values():
        for operation in path.values():
            assert {"4XX", "5XX"} <= set(operation["responses"])


@pytest.mark.slow
def test_nothing_breaks_what_is_described(described, served, tried, conforming) -> None:
    import schemathesis

    modes = schemathesis.GenerationMode
    for result in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = result.ok()
        assert tried(operation, modes.POSITIVE, served, conforming)
        if operation.path.endswith(("2img", "-image", "png-info", "options")):
            if operation.method.lower() == "post":  # numbers may be text, as in theirs
                assert tried(operation, modes.NEGATIVE, served, conforming) > 10
