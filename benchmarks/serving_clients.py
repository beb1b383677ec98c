"""Servers as processes, and clients of them, for `serving_http.py`."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CAPTIONS = ("a red fox", "pizza with mushrooms", "a blue whale under a rainbow", "an old clock")


class Server:
    """A server that listens, as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        line = process.stdout.readline()
        self.address = urlsplit(line.removeprefix("serving on ").strip()).netloc

    def connect(self) -> http.client.HTTPConnection:
        """A connection to it."""
        return http.client.HTTPConnection(self.address, timeout=600)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What it answers, as JSON."""
        with closing(self.connect()) as connection:
            return json.loads(asked(connection, method, path, body))

    def image(self, connection: http.client.HTTPConnection, size: int, seed: int) -> bytes:
        """A new image by OpenAI's API."""
        body = {"prompt": CAPTIONS[seed % len(CAPTIONS)], "size": f"{size}x{size}", "seed": seed}
        answer = json.loads(asked(connection, "POST", "/v1/images/generations", body))
        return base64.b64decode(answer["data"][0]["b64_json"])

    def job(self, **request: Any) -> str:
        """Submit a job by the native API; its id."""
        return str(self.ask("POST", "/api/v1/jobs", {"prompt": CAPTIONS[0], **request})["id"])

    def events(self, job: str, side: int = 256) -> Iterator[tuple[str, dict[str, Any], float]]:
        """What happens to a job: kind, data, and when it was heard."""
        with closing(self.connect()) as connection:
            connection.request("GET", f"/api/v1/jobs/{job}/events?side={side}")
            kind = ""
            with connection.getresponse() as answer:
                for line in answer:
                    name, _, text = line.decode().rstrip("\n").partition(": ")
                    if name == "event":
                        kind = text
                    elif name == "data":
                        yield kind, json.loads(text), time.perf_counter()

    def metric(self, name: str, resolution: int) -> float:
        """A number of `/metrics`, of a stage."""
        with closing(self.connect()) as connection:
            text = asked(connection, "GET", "/metrics").decode()
        wanted = f'resolution="{resolution}"'
        lines = (line for line in text.splitlines() if line.startswith(f"calotype_{name}{{"))
        return sum(float(line.rpartition(" ")[2]) for line in lines if wanted in line)


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> bytes:
    """The body of an answer, which has to be one of success."""
    text = None if body is None else json.dumps(body).encode()
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {found[:200]!r}")
    return found


@contextmanager
def running(*command: str) -> Iterator[Server]:
    """A server as long as the block; what it logs is thrown away.

    How OpenMP's threads wait is left to it: as whoever has said nothing about it would run it.
    """
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    said = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in said}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=pipe, stderr=nothing, text=True, env=environment
    )
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """`calotype serve` with a folder of its own."""
    with tempfile.TemporaryDirectory() as data:
        command = ("-m", "calotype", "serve", "--port", "0", "--data", data, "--drain", "0")
        with running(*command, *options) as server:
            yield server


def together(clients: int, work: Callable[[int], None], count: int) -> float:
    """Seconds in which so many clients do `work` on the numbers below `count`."""
    numbers, errors = iter(range(count)), []

    def client() -> None:
        try:
            for number in numbers:
                work(number)
        except BaseException as error:  # told by whoever waits
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - begin


@contextmanager
def busy(server: Server, size: int, clients: int = 8) -> Iterator[None]:
    """Clients that ask for one image after another as long as the block."""
    stop = threading.Event()

    def client(first: int) -> None:
        with closing(server.connect()) as connection:
            for seed in itertools.count(first, clients):
                if stop.is_set():
                    return
                server.image(connection, size, seed)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def own_megabytes(pid: int) -> float:
    """Memory of a process and of all its children that no file stands behind, swapped or not."""
    total, folder = 0.0, Path(f"/proc/{pid}")
    for line in (folder / "status").read_text().splitlines():
        if line.startswith(("RssAnon", "VmSwap")):
            total += int(line.split()[1]) / 1024
    tasks = (folder / "task").glob("*/children")
    return total + sum(own_megabytes(int(child)) for t in tasks for child in t.read_text().split())
