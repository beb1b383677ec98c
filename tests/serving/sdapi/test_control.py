"""Progress, interrupt and skip: of the client's own jobs alone, or of those it names."""

from __future__ import annotations

import base64
import json
import threading
import time

import httpx
import pytest


@pytest.fixture(scope="module")
def own(fake, serve_at):
    """A server's address and its hub; three images of a client are worked on at once."""
    with serve_at(fake(active=4)) as (address, app):
        hub = app.state.hub

        async def cancel():
            for job in hub._memory.jobs():
                hub.cancel(job)

        app.add_api_route("/test/cancel", cancel, methods=["POST"])
        yield address, hub


@pytest.fixture
def hub(own):
    hub = own[1]
    yield hub
    httpx.post(f"{own[0]}/test/cancel").raise_for_status()
    until(lambda: not hub.work.active)


def until(condition):
    deadline = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


class Call:
    """A request that goes on in a thread."""

    def __init__(self, address, body):
        self.found = None
        self.address = f"{address}/sdapi/v1"
        self.thread = threading.Thread(target=self._send, args=(body,))
        self.thread.start()

    def _send(self, body):
        answer = httpx.post(f"{self.address}/txt2img", json=body, timeout=30)
        answer.raise_for_status()
        self.found = {**answer.json(), "info": json.loads(answer.json()["info"])}

    def progress(self, **params):
        return httpx.get(f"{self.address}/progress", params=params).json()

    def post(self, path, **params):
        answer = httpx.post(f"{self.address}/{path}", params=params)
        assert answer.status_code == 200 and answer.json() == {}

    def end(self):
        self.thread.join(20)
        assert self.found is not None
        return self.found


def test_an_interrupted_call_returns_its_present_estimates(own, hub, recipe_of, opened) -> None:
    call = Call(own[0], {"prompt": "wait", "seed": 1, "batch_size": 4, "width": 256, "height": 256})
    found = until(lambda: (p := call.progress())["current_image"] and p)
    assert 0 < found["progress"] < 1 and found["eta_relative"] >= 0
    assert found["state"]["job_count"] == 4 and found["state"]["sampling_steps"] in (2, 4)
    assert max(opened(found["current_image"]).size) <= 256
    assert call.progress(skip_current_image=True)["current_image"] is None
    call.post("interrupt")
    made = call.end()
    assert len(made["images"]) == 3  # the fourth waited and had none
    assert all(recipe_of(image)["interrupted"] for image in made["images"])
    assert made["info"]["all_seeds"] == [1, 2, 3] and len(made["info"]["infotexts"]) == 3
    idle = call.progress()
    assert idle["progress"] == 0 and idle["state"]["job_count"] == 0


def test_a_skipped_call_goes_on_with_what_waits(own, hub, recipe_of) -> None:
    call = Call(own[0], {"prompt": "wait", "seed": 1, "n_iter": 4, "width": 64, "height": 64})
    until(lambda: call.progress()["progress"] > 0.7)
    call.post("skip")
    until(lambda: call.progress()["state"]["job_no"] == 3)
    assert call.progress()["state"]["skipped"]
    until(lambda: hub.work.active == 1 and call.progress()["progress"] > 0.9)
    call.post("skip")
    assert len(call.end()["images"]) == 4


def test_other_apis_jobs_are_not_seen(own, hub) -> None:
    def generate():
        body = {"prompt": "wait", "size": "64x64"}
        httpx.post(f"{own[0]}/v1/images/generations", json=body, timeout=30)

    thread = threading.Thread(target=generate)
    thread.start()
    until(lambda: hub.work.active)
    assert httpx.get(f"{own[0]}/sdapi/v1/progress").json()["state"]["job_count"] == 0
    httpx.post(f"{own[0]}/sdapi/v1/interrupt")
    time.sleep(0.2)
    assert hub.work.active == 1
    httpx.post(f"{own[0]}/test/cancel")
    thread.join(10)


def test_named_tasks(own, hub) -> None:
    one, two = (
        Call(own[0], {"prompt": "wait", "width": 64, "height": 64, "force_task_id": name})
        for name in ("one", "two")
    )
    until(lambda: one.progress()["state"]["job_count"] == 2)
    assert one.progress(force_task_id="one")["state"]["job_count"] == 1
    assert one.progress(force_task_id="three")["state"]["job_count"] == 0
    one.post("interrupt", force_task_id="one")
    one.end()
    assert two.found is None and two.progress()["state"]["job_count"] == 1
    two.post("interrupt")
    two.end()


def test_a_client_that_goes_takes_its_job_along(own, hub) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{own[0]}/sdapi/v1/txt2img", json={"prompt": "wait"}, timeout=0.5)
    until(lambda: not hub.work.active)


@pytest.mark.slow
def test_other_clients_jobs_are_not_seen(tmp_path, fake, serve_at) -> None:
    from calotype.serving.front.keys import new_key

    mine, yours = (new_key(tmp_path, name) for name in ("mine", "yours"))
    with serve_at(fake(data=tmp_path, keep="none")) as (address, _):
        found = {}

        def send():
            body = {"prompt": "wait", "width": 64, "height": 64, "force_task_id": "t"}
            answer = httpx.post(
                f"{address}/sdapi/v1/txt2img", json=body, auth=("mine", mine), timeout=30
            )
            found.update(answer.json())

        thread = threading.Thread(target=send)
        thread.start()

        def count(auth, **params):
            answer = httpx.get(f"{address}/sdapi/v1/progress", auth=auth, params=params)
            return answer.json()["state"]["job_count"]

        until(lambda: count(("", mine)) == 1)
        for params in ({}, {"force_task_id": "t"}):
            assert count(("yours", yours), **params) == 0
            httpx.post(f"{address}/sdapi/v1/interrupt", auth=("yours", yours), params=params)
        time.sleep(0.2)
        assert not found
        chosen = {"sd_model_checkpoint": "other"}
        httpx.post(f"{address}/sdapi/v1/options", auth=("yours", yours), json=chosen)
        for auth, name in ((("yours", yours), "other"), (("mine", mine), "default")):
            options = httpx.get(f"{address}/sdapi/v1/options", auth=auth).json()
            assert options["sd_model_checkpoint"] == name
        assert httpx.get(f"{address}/sdapi/v1/options", auth=("", "wrong")).status_code == 401
        httpx.post(f"{address}/sdapi/v1/interrupt", auth=("mine", mine))
        thread.join(10)
        assert base64.b64decode(found["images"][0])


def test_previews_of_every_step_are_made_for_those_who_look(tmp_path, fake, serve_at) -> None:
    """Others have two or three, so that whoever begins to look sees something."""
    with serve_at(fake(data=tmp_path, keep="none")) as (address, app):
        asked = []

        def send(key):
            body = {"prompt": "a fox", "width": 640, "height": 320}
            headers = {"idempotency-key": key}  # again, whatever was looked at meanwhile
            found = httpx.post(f"{address}/sdapi/v1/txt2img", json=body, headers=headers)
            assert found.status_code == 200
            newest = app.state.hub._memory.jobs()[-1].submission
            asked.append((newest.previews, newest.preview_side))

        for skip, key in ((True, "a"), (True, "b"), (False, "c"), (False, "a")):
            send(key)
            params = {"skip_current_image": skip}
            httpx.get(f"{address}/sdapi/v1/progress", params=params).raise_for_status()
        send("d")
        assert asked == [("partial", 256)] * 4 + [("steps", 256)]


def test_a_client_that_has_not_looked_for_long_is_forgotten(monkeypatch) -> None:
    from calotype.serving.front.jobs import Owner
    from calotype.serving.sdapi import desk

    one, other = desk.Desk(), Owner(None, "10.0.0.2")
    now = time.monotonic()
    one.watch(Owner(None, "10.0.0.1"))
    assert one.is_watched(Owner(None, "10.0.0.1")) and not one.is_watched(other)
    monkeypatch.setattr(desk.time, "monotonic", lambda: now + 601)
    assert not one.is_watched(Owner(None, "10.0.0.1"))
