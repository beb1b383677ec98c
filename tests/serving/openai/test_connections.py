"""Connections that close, requests that come twice, queues that are full, work that fails."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import openai
import pytest


def with_end(app):
    """Tests may end what runs, on the loop where it runs."""

    async def end(interrupt: bool = False):
        hub = app.state.hub
        for job in hub._memory.jobs():
            hub.cancel(job, interrupt=interrupt)

    async def late():
        for job in app.state.hub._memory.jobs():
            app.state.hub.work.stop(job, reason=("it took too long", "usage"))

    app.add_api_route("/test/end", end, methods=["POST"])
    app.add_api_route("/test/late", late, methods=["POST"])


@pytest.fixture(scope="module")
def own(fake, serve_at):
    """A server's address and its application."""
    with serve_at(fake()) as (address, app):
        with_end(app)
        yield address, app


@pytest.fixture
def hub(own, until):
    hub = own[1].state.hub
    yield hub
    httpx.post(f"{own[0]}/test/end").raise_for_status()
    until(lambda: not hub.work.active)


def client_of(own, **options):
    return openai.OpenAI(base_url=f"{own[0]}/v1", api_key="-", **{"max_retries": 0, **options})


def post(own, prompt, headers=None, **fields):
    body = {"prompt": prompt, **fields}
    return httpx.post(f"{own[0]}/v1/images/generations", json=body, headers=headers, timeout=20)


def test_closing_a_stream_cancels_within_a_step(own, hub, until) -> None:
    with client_of(own) as client:
        stream = client.images.generate(prompt="wait", n=2, stream=True, partial_images=3)
        next(iter(stream))
        assert hub.work.active == 2
        stream.close()
        until(lambda: not hub.work.active, seconds=3)


def test_a_client_that_waits_no_more_cancels_its_job(own, hub, until) -> None:
    with client_of(own, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="wait")
    until(lambda: not hub.work.active, seconds=3)


def test_the_asynchronous_client_cancels_too(own, hub, until) -> None:
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{own[0]}/v1", api_key="-") as client:
            task = asyncio.create_task(client.images.generate(prompt="wait"))
            while not hub.work.active:
                await asyncio.sleep(0.01)
            task.cancel()
            stream = await client.images.generate(prompt="a fox", stream=True, partial_images=1)
            return [event.type async for event in stream]

    assert asyncio.run(ask())[-1] == "image_generation.completed"
    until(lambda: not hub.work.active, seconds=3)


def test_a_key_outlives_its_connection_and_joins(own, hub, until) -> None:
    headers = {"Idempotency-Key": "once"}
    with client_of(own, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="slow slow", n=6, extra_headers=headers)
    with client_of(own) as client:
        again = client.images.with_raw_response.generate(
            prompt="slow slow", n=6, extra_headers=headers
        )
        assert len(again.parse().data) == 6
        third = client.images.with_raw_response.generate(
            prompt="slow slow", n=6, extra_headers=headers
        )
        assert third.headers["x-seeds"] == again.headers["x-seeds"]  # random, and so one job
        with pytest.raises(openai.UnprocessableEntityError):
            client.images.generate(prompt="another", extra_headers=headers)


def test_a_clients_own_retries_join_the_running_job(own, hub, until) -> None:
    seeds = []

    def ask(retry):
        answer = post(own, "wait", {"X-Stainless-Retry-Count": str(retry)}, n=4)
        seeds.append(answer.headers["x-seeds"])

    threads = [threading.Thread(target=ask, args=(retry,)) for retry in (0, 1, 2)]
    threads[0].start()
    until(lambda: hub.work.active == 4)
    for thread in threads[1:]:
        thread.start()
    until(lambda: [job.holders for job in hub._memory.jobs() if not job.is_over] == [3])
    httpx.post(f"{own[0]}/test/end", params={"interrupt": True})
    for thread in threads:
        thread.join()
    assert len(seeds) == 3 and len(set(seeds)) == 1


def test_other_requests_do_not_join(own, hub) -> None:
    assert len({post(own, "a fox").headers["x-seeds"] for _ in range(3)}) == 3


@pytest.mark.slow
def test_a_full_queue_is_429_and_the_client_comes_back(fake, serve_at, until) -> None:
    with serve_at(fake(active=1, most_waiting=2)) as own:
        with_end(own[1])
        thread = threading.Thread(target=post, args=(own, "wait"), kwargs={"n": 2})
        thread.start()
        until(lambda: own[1].state.hub.work.waiting == 1)
        with client_of(own) as client, pytest.raises(openai.RateLimitError) as found:
            client.images.generate(prompt="a fox", n=2)
        assert found.value.code == "queue_full" and found.value.type == "rate_limit_error"
        assert 1 <= int(found.value.response.headers["retry-after"]) <= 120
        assert found.value.response.headers["x-should-retry"] == "true"
        threading.Timer(0.5, httpx.post, [f"{own[0]}/test/end"]).start()
        with client_of(own, max_retries=3) as client:
            assert client.images.generate(prompt="a fox", n=2).data
        thread.join()


@pytest.mark.parametrize(
    ("prompt", "code"), [("fail by memory", "out_of_memory"), ("fail by defect", "engine_failed")]
)
def test_work_that_fails_is_an_error_that_is_not_tried_again(own, hub, prompt, code) -> None:
    with client_of(own, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as found:
            client.images.generate(prompt=prompt)
        assert found.value.code == code
        assert found.value.response.request.headers["x-stainless-retry-count"] == "0"
        with pytest.raises(openai.APIError, match="is out") as found:
            list(client.images.generate(prompt=prompt, stream=True))
        assert found.value.code == code


def test_a_stream_ends_with_its_mark_also_after_an_error(own, hub) -> None:
    for prompt, kind in (("a fox", "completed"), ("fail by memory", '"error"')):
        lines = post(own, prompt, stream=True).text.strip().split("\n\n")
        assert lines[-1] == "data: [DONE]" and kind in lines[-2]
        assert sum("error" in line for line in lines) == (kind == '"error"')


def test_what_is_finished_comes_although_the_rest_failed(fake, serve_at, until) -> None:
    with serve_at(fake(active=1)) as own:
        with_end(own[1])
        memory = own[1].state.hub._memory

        def late():
            until(lambda: any(i.state == "done" for job in memory.jobs() for i in job.images))
            httpx.post(f"{own[0]}/test/late")

        thread = threading.Thread(target=late)
        thread.start()
        answer = post(own, "slow", n=10, seed=1)
        thread.join()
    assert answer.status_code == 200
    body = answer.json()
    assert 0 < len(body["data"]) < 10 == len(body["data"]) + len(body["errors"])
    assert body["errors"][-1] == {"image": 9, "message": "it took too long", "kind": "usage"}
    seeds = answer.headers["x-seeds"].split(",")
    assert seeds[0] == "1" and len(seeds) == len(body["data"])


def test_a_job_that_others_cancel_is_a_conflict(own, hub, until) -> None:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(post(own, "wait")))
    thread.start()
    until(lambda: hub.work.active)
    httpx.post(f"{own[0]}/test/end")
    thread.join()
    assert answers[0].status_code == 409 and answers[0].json()["error"]["code"] == "cancelled"
    assert answers[0].headers["x-should-retry"] == "false"


def test_a_quiet_stream_says_that_it_lives(own, hub, monkeypatch) -> None:
    from calotype.serving.openai import answering

    monkeypatch.setattr(answering, "_QUIET_SECONDS", 0.05)
    with httpx.stream(
        "POST", f"{own[0]}/v1/images/generations", json={"prompt": "wait", "stream": True}
    ) as found:
        lines = found.iter_lines()
        assert [next(lines) for _ in range(4)] == [": ping", "", ": ping", ""]


def test_the_frameworks_errors_have_openais_shape(own) -> None:
    for method, path, status in (("GET", "/v1/images/generations", 405), ("GET", "/v1/x", 404)):
        answer = httpx.request(method, own[0] + path)
        assert answer.status_code == status and answer.headers["x-should-retry"] == "false"
        assert set(json.loads(answer.text)["error"]) == {"message", "type", "param", "code"}


def test_streams_that_are_closed_leave_nothing_behind(own, hub, until) -> None:
    with client_of(own) as client:
        for _ in range(5):
            stream = client.images.generate(prompt="wait", stream=True, partial_images=1)
            next(iter(stream))
            stream.close()
    with httpx.Client() as raw:  # closed before anything was read
        request = raw.build_request(
            "POST",
            f"{own[0]}/v1/images/generations",
            json={"prompt": "wait", "stream": True, "n": 3},
        )
        raw.send(request, stream=True).close()
    until(lambda: not hub.work.active)
    left = [job for job in hub._memory.jobs() if not job.outlives]
    assert not left and all(not job.changed for job in hub._memory.jobs())


def test_a_stream_with_a_key_can_be_heard_again(own, hub) -> None:
    def ask(client):
        stream = client.images.generate(
            prompt="a fox",
            stream=True,
            partial_images=2,
            extra_headers={"Idempotency-Key": "again"},
        )
        return [(event.type, event.b64_json) for event in stream]

    with client_of(own) as client:
        first = ask(client)
        assert first == ask(client) and len(first) == 3
