"""What is to be seen: metrics, the log, request ids."""

import io
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.testclient import TestClient

from calotype.serving.front.app import build_app
from calotype.serving.front.context import hub_of, request_id_of
from calotype.serving.front.jobs import Owner, Submission
from calotype.serving.front.logs import make_log
from calotype.serving.front.observer import Observer
from calotype.serving.job import JobRequest


@pytest.fixture
def watched(fake):
    """Make a client of an application, and what it logs."""

    def make(**options):
        stream = io.StringIO()
        app = build_app(fake(), None, Observer(make_log(stream), **options))

        @app.get("/test/make/{prompt}")
        async def make_one(request: Request, prompt: str):
            asked = JobRequest(prompt=prompt, seed=1, n=2)
            hub, owner = hub_of(request), Owner(None, "a")
            job = await hub.submit(
                Submission(
                    request=asked, owner=owner, api="native", request_id=request_id_of(request)
                )
            )
            async for event in hub.events(job):
                last = event.kind
            return last

        @app.get("/test/defect")
        async def defect():
            raise RuntimeError("at /home/me/secret.py")

        return TestClient(app, raise_server_exceptions=False), stream

    return make


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def numbers(client):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_count_requests_waits_calls_and_outcomes(watched) -> None:
    client, _ = watched()
    with client:
        assert client.get("/test/make/fox").json() == "done"
        assert client.get("/test/make/fail by memory").json() == "failed"
        assert client.get("/nothing/at/all").status_code == 404
        found = numbers(client)
    route = ("method", "GET"), ("route", "/test/make/{prompt}"), ("status", "200")
    assert found["calotype_requests_total", route] == 2
    other = ("method", "GET"), ("route", "other"), ("status", "404")
    assert found["calotype_requests_total", other] == 1
    for outcome in ("done", "failed"):
        labels = ("api", "native"), ("outcome", outcome)
        assert found["calotype_images_total", labels] == 2
    assert found["calotype_wait_seconds_count", ()] == 4
    call = ("model", "default"), ("resolution", "64")
    steps = found["calotype_step_seconds_count", call]
    assert steps >= 8 and found["calotype_batch_rows_sum", call] == 2 * steps
    assert found["calotype_engine_restarts_total", ()] == 0
    assert found["calotype_front_process_resident_memory_bytes", ()] > 1e6


def test_the_page_is_one_route_and_its_files_are_another(watched) -> None:
    client, stream = watched()
    asked = {"/": 200, "/page/app/main.js": 200, "/page/app/jobs.js": 200, "/page/no.js": 404}
    with client:
        assert {path: client.get(path).status_code for path in asked} == asked
        found = numbers(client)
    routes = {
        dict(labels)["route"]: 0.0 for name, labels in found if name == "calotype_requests_total"
    }
    for (name, labels), count in found.items():
        if name == "calotype_requests_total":
            routes[dict(labels)["route"]] += count
    assert routes == {"/": 1, "/page": 3}
    told = [line["route"] for line in lines(stream) if line["event"] == "request"]
    assert told == ["/", "/page", "/page", "/page"]


def test_the_log_joins_request_and_job_and_holds_no_caption(watched) -> None:
    client, stream = watched()
    with client:
        answer = client.get("/test/make/secret", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    told = lines(stream)
    queued, over, request = (
        next(line for line in told if line["event"] == event)
        for event in ("queued", "over", "request")
    )
    assert queued["request_id"] == request["request_id"] == "mine-1"
    assert queued["job"] == over["job"] and over["state"] == "done"
    assert "secret" not in stream.getvalue()


def test_captions_are_logged_if_asked_for(watched) -> None:
    client, stream = watched(log_prompts=True)
    with client:
        client.get("/test/make/fox%1B[2J")
    queued = next(line for line in lines(stream) if line["event"] == "queued")
    assert queued["prompt"] == "fox\x1b[2J" and "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "\u00e4", "a\tb"])
def test_a_strange_request_id_is_replaced(client, given) -> None:
    headers = {"x-request-id": given.encode("latin-1")}
    found = client.get("/healthz", headers=headers).headers["x-request-id"]
    assert found != given and 8 < len(found) < 40


def test_a_defect_shows_nothing_of_itself(watched) -> None:
    client, stream = watched()
    with client:
        answer = client.get("/test/defect", headers={"x-request-id": "d"})
    assert answer.status_code == 500 and answer.headers["x-request-id"] == "d"
    assert "secret" not in answer.text and answer.json()["error"]["type"] == "server_error"
    assert next(line for line in lines(stream) if line["event"] == "request")["status"] == 500
