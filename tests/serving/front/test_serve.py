"""Servers as processes: killed at every point, told to end, and two on one folder."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from calotype.errors import CalotypeError
from calotype.serving.front.serve import _Server
from calotype.web.addresses import listen as listening

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "fake_server.py"


class Server:
    """A server that has been started."""

    def __init__(self, **options):
        options["data"] = str(options["data"])
        command = [sys.executable, str(SCRIPT), json.dumps(options)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        line = self.process.stdout.readline()
        self.url = line.removeprefix("serving on ").strip()

    def add(self, prompt, *, outlives=True, **request):
        body = {"request": {"prompt": prompt, "seed": 1, **request}, "outlives": outlives}
        return httpx.post(f"{self.url}/test/jobs", json=body, timeout=60)

    def get(self, path):
        return httpx.get(f"{self.url}/test/{path}", timeout=60).json()

    def interrupt(self, job):
        httpx.post(f"{self.url}/test/jobs/{job}/interrupt", timeout=60).raise_for_status()

    def states(self):
        return {job["id"]: job["state"] for job in self.get("jobs")}

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.01)

    def ended(self):
        """Exit code, and the lines on stderr that are no log."""
        code = self.process.wait(60)
        lines = self.process.stderr.read().splitlines()
        self.log = [json.loads(line) for line in lines if line.startswith("{")]
        return code, [line for line in lines if not line.startswith("{")]


@contextmanager
def server(**options):
    found = Server(**options)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


def files(folder):
    found = sorted(folder.glob("images/*/*"))
    for path in found:
        Image.open(io.BytesIO(path.read_bytes())).load()  # whole
    return {path.stem for path in found}


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("point", "at"),
    [("note", 1), ("file", 1), ("between", 1), ("between", 2), ("row", 3), ("end", 1)],
)
def test_nothing_is_lost_when_the_front_is_killed(tmp_path, point, at) -> None:
    with server(data=tmp_path, kill=[point, at], active=2) as killed:
        with pytest.raises(httpx.HTTPError):
            killed.add("a fox", n=3)
            while True:
                killed.get("jobs")
        assert killed.process.wait(20) == -signal.SIGKILL
    whole = files(tmp_path)
    with server(data=tmp_path) as after:
        after.until(lambda: set(after.states().values()) == {"done"})
        listed = after.get("images")
        (job,) = after.get("jobs")
    assert sorted(seed for _, _, seed in listed) == [1, 2, 3]
    assert {image_id for image_id, _, _ in listed} == files(tmp_path) == set(job["ids"])
    assert whole <= files(tmp_path)


def test_jobs_whose_client_is_gone_read_interrupted(tmp_path) -> None:
    with server(data=tmp_path) as killed:
        bound = killed.add("wait", outlives=False).json()["id"]
        free = killed.add("slow", outlives=True).json()["id"]
        engine = killed.get("status")["pid"]
    with server(data=tmp_path) as after:
        after.until(lambda: after.states() == {bound: "interrupted", free: "done"})
    assert not is_running(engine)  # it ended with its front


def test_what_kills_servers_is_not_started_for_ever(tmp_path) -> None:
    for _ in range(3):
        with server(data=tmp_path) as killed:
            if not killed.get("jobs"):
                killed.add("wait")
            killed.until(lambda: killed.get("status")["active"] == 1)
            time.sleep(0.1)
    with server(data=tmp_path) as after:
        assert [*after.states().values()] == ["failed"]


def test_a_second_server_on_a_folder_is_one_line(tmp_path) -> None:
    with server(data=tmp_path), server(data=tmp_path) as second:
        code, lines = second.ended()
    assert code == 1 and len(lines) == 1 and "another process works in" in lines[0]


def test_an_engine_that_does_not_start_ends_the_server(tmp_path) -> None:
    with server(data=tmp_path, engine=["--refuse-start"]) as refused:
        code, lines = refused.ended()
    assert code == 1 and len(lines) == 2
    assert "no such model" in lines[0] and "does not start" in lines[1]


def listen(url, job, found):
    with httpx.stream("GET", f"{url}/test/jobs/{job}/events", timeout=120) as stream:
        for line in stream.iter_lines():
            found.append(json.loads(line))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_running_work_ends_before_the_server_does(tmp_path, sent) -> None:
    with server(data=tmp_path, drain=60.0, active=1) as told:
        running = told.add("wait").json()[
            "id"
        ]  # until it is interrupted: no sooner, on any machine
        waiting = told.add("a cat").json()["id"]
        heard, other = [], []
        threads = [
            threading.Thread(target=listen, args=(told.url, running, heard)),
            threading.Thread(target=listen, args=(told.url, waiting, other)),
        ]
        for thread in threads:
            thread.start()
        told.until(lambda: ["started", {"image": 0}] in heard and other)
        told.process.send_signal(sent)
        refused = told.add("a dog")
        threads[1].join(60)  # it is told that it will not begin any more, while the other runs
        told.interrupt(running)
        threads[0].join(60)
        assert told.ended() == (0, [])
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    assert heard[-1][0] == "done" and other[-1] == ["failed", other[-1][1]]
    assert other[-1][1]["kind"] == "shutdown"
    with server(data=tmp_path) as after:  # what waited goes on
        after.until(lambda: after.states() == {running: "done", waiting: "done"})


def below(pid):
    """A process and all that it has started, and they."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_work_in_replicas_ends_before_the_server_does_and_no_ray_is_left(tmp_path) -> None:
    pytest.importorskip("ray.serve")
    options = {"ray": "local", "replicas": [2, 2], "active": 2, "step_timeout": 60.0}
    with server(data=tmp_path, drain=60.0, **options) as told:
        running = [told.add("wait").json()["id"] for _ in range(3)]  # a client has no more places
        heard = [[], [], []]
        threads = [
            threading.Thread(target=listen, args=(told.url, *one))
            for one in zip(running, heard, strict=True)
        ]
        for thread in threads:
            thread.start()
        told.until(lambda: all(["started", {"image": 0}] in one for one in heard), 120)
        processes = below(told.process.pid)
        assert sum(is_engine(pid) for pid in processes) == 2
        told.process.send_signal(signal.SIGTERM)
        told.until(lambda: told.add("a dog").status_code == 503)
        for job in running:
            told.interrupt(job)
        for thread in threads:
            thread.join(60)
        assert told.ended() == (0, [])
        told.until(lambda: not any(is_running(pid) for pid in processes))
    assert [one[-1][0] for one in heard] == ["done"] * 3


def is_engine(pid):
    return b"fake_engine.py" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_open_streams_end_when_time_is_up(tmp_path) -> None:
    with server(data=tmp_path, drain=0.3) as told:
        job = told.add("wait").json()["id"]
        heard = []
        thread = threading.Thread(target=listen, args=(told.url, job, heard))
        thread.start()
        told.until(lambda: told.get("status")["active"])
        told.process.send_signal(signal.SIGTERM)
        thread.join(60)
        assert told.ended()[0] == 0
    assert heard[-1][0] == "failed"


def test_ctrl_c_twice_ends_at_once(tmp_path) -> None:
    with server(data=tmp_path, drain=60.0) as told:
        told.add("wait")
        told.until(lambda: told.get("status")["active"])
        told.process.send_signal(signal.SIGINT)
        told.until(lambda: told.add("x").status_code == 503)
        told.process.send_signal(signal.SIGINT)
        code, lines = told.ended()
    assert code == 130 and lines == ["calotype: interrupted"]


def test_a_server_that_does_not_start_is_an_error() -> None:
    @asynccontextmanager
    async def failing(app):
        raise RuntimeError("the store cannot be read")
        yield

    app = FastAPI(lifespan=failing)
    with listening("127.0.0.1", 0) as socket, pytest.raises(CalotypeError, match="does not start"):
        _Server(app, app, lambda: pytest.fail("it does not work")).run_on(socket)


def test_a_server_that_is_told_to_end_while_it_starts_ends() -> None:
    @asynccontextmanager
    async def told(app):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        yield

    app = FastAPI(lifespan=told)
    with listening("127.0.0.1", 0) as socket:
        _Server(app, app, lambda: pytest.fail("it does not work")).run_on(socket)
