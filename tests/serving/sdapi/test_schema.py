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


def tried(operation, mode, address, wanted):
    """How many requests were sent, all of them answered as described."""
    from hypothesis import HealthCheck, given, seed, settings

    count = 0

    @seed(1)
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        nonlocal count
        count += 1
        case.call_and_validate(base_url=address, checks=wanted)

    check()
    return count


@pytest.mark.slow
def test_nothing_breaks_what_is_described(described, served) -> None:
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    always = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    modes = schemathesis.GenerationMode
    for result in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = result.ok()
        assert tried(operation, modes.POSITIVE, served, always)
        if operation.path.endswith(("2img", "-image", "png-info", "options")):
            if operation.method.lower() == "post":  # numbers may be text, as in theirs
                assert tried(operation, modes.NEGATIVE, served, always) > 10
