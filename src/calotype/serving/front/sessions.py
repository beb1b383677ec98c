"""Sessions with replicas of a Ray Serve deployment: how engines on other machines are reached.

A session is one streaming request to the deployment, which has one replica for each. What is said
to the engine goes through an inbox that is this process's: when it ends, so do the sessions.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import logging
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from calotype.data.ray_jobs import connected
from calotype.errors import CalotypeError
from calotype.serving import wire
from calotype.serving.front.channels import Channel, ended
from calotype.serving.front.settings import ServeSettings
from calotype.serving.replica import HEALTH_SECONDS, Replica

LEASE_SECONDS = 30.0
"""Without a word of the front after which a replica ends its engine."""
_RENEWALS = 4  # in the time of a lease
_DOWNSCALE_SECONDS = 30.0
_LOOK_BACK_SECONDS = 12.0  # sessions are reported every ten
_LOST = -1  # in place of an exit code
_PREFIX = "calotype-"  # of applications; and the namespace of what tells that their fronts live
_ANSWER_SECONDS = 5.0


class Cluster:
    """A deployment of engines on a Ray cluster.

    Args:
        settings: `ray` is the address, see `ray_jobs.connected`.
        command: that starts an engine; of options only for the replica's own Python.
    """

    def __init__(self, settings: ServeSettings, command: Sequence[str]) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._handle: Any = None

    def open(self) -> None:
        """Connect and deploy; blocks.

        Raises:
            MissingExtra: Ray Serve is not installed.
            CalotypeError: the cluster cannot be reached.
        """
        with self._lock:
            assert self._settings.ray is not None
            most = self._settings.replicas[1]
            logging.getLogger("ray").setLevel(logging.ERROR)
            if self._settings.ray == "local":  # its ports are open to every machine
                os.environ.setdefault("RAY_AUTH_MODE", "token")
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray = connected(self._settings.ray, most, part="ray.serve", extra="serve-ray")
            self._stack.enter_context(ray)
            try:
                self._deploy()
            except Exception as error:  # Ray's have many bases
                raise CalotypeError(f"Ray takes no engines: {_line(error)}") from error

    def _deploy(self) -> None:
        serve = importlib.import_module("ray.serve")
        logging.getLogger("ray.serve").setLevel(logging.ERROR)  # its import sets another
        serve.start(proxy_location="Disabled")  # it listens to nobody
        name = f"{_PREFIX}{secrets.token_hex(4)}"
        sign = _queue(name=name, namespace=_PREFIX)  # ends with this process, however that ends
        self._stack.callback(sign.shutdown, True)
        least, most = self._settings.replicas
        deployment = serve.deployment(
            Replica,
            name="engine",
            max_ongoing_requests=1,
            health_check_period_s=HEALTH_SECONDS,
            graceful_shutdown_timeout_s=self._settings.deadline + LEASE_SECONDS,
            ray_actor_options={"num_cpus": 1, "num_gpus": self._settings.gpus_per_replica},
            autoscaling_config={
                "min_replicas": 0,  # without a front, which has a session for each of its least
                "initial_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": 1,
                "upscale_delay_s": 0,
                "downscale_delay_s": _DOWNSCALE_SECONDS,
                "look_back_period_s": _LOOK_BACK_SECONDS,
            },
        )
        target = serve.RunTarget(deployment.bind(self._command), name=name, route_prefix=None)
        self._stack.callback(serve.delete, name)
        (self._handle,) = serve.run_many([target], wait_for_applications_running=False)
        self._stack.callback(self._handle.shutdown)  # or its threads would look for Ray for good
        with suppress(Exception):  # whatever it is, it is no matter of this deployment
            for other in serve.status().applications:
                if other.startswith(_PREFIX) and not _is_alive(other):
                    serve.delete(other)

    def close(self) -> None:
        """Take the deployment away; blocks."""
        with self._lock:
            self._stack.close()

    async def session(self) -> Channel:
        """Ask for a replica; what it says comes when there is one.

        Raises:
            OSError: the cluster is not there.
        """
        try:
            return _Session(*await asyncio.to_thread(self._ask))
        except Exception as error:  # Ray's have many bases
            raise ConnectionError(_line(error)) from error

    def _ask(self) -> tuple[Any, Any]:
        inbox = _queue()
        return inbox, self._handle.options(stream=True).session.remote(inbox, LEASE_SECONDS)


class _Session:
    """As `Channel`."""

    def __init__(self, inbox: Any, answer: Any) -> None:
        self.pid: int | None = None
        self._inbox = inbox
        self._answer = answer
        self._ending = _LOST, "its replica is lost"
        self._wanted: set[str] = set()
        self._heard: asyncio.Queue[wire.Message | None] = asyncio.Queue()
        self._to_send: asyncio.Queue[bytes] = asyncio.Queue()
        work = (self._hear(), self._renew(), self._send())
        self._tasks = [asyncio.create_task(one) for one in work]

    async def read(self) -> wire.Message | None:
        message = await self._heard.get()
        if message is None:
            return None
        head = message.head
        if message.op == "ended":
            code, said = int(head["code"]), f": {head['said']}" if head["said"] else ""
            self._ending = code, ended(code) + said
            return None
        if message.op in wire.LAST_WORDS:
            self._wanted.discard(head["id"])
        return message

    def write(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        if head["op"] == "start":
            self._wanted.add(head["id"])
        elif head["op"] == "cancel":
            self._wanted.discard(head["id"])
        self._to_send.put_nowait(b"".join(wire.encode(head, blobs)))

    def kill(self) -> None:
        self._answer.cancel()
        self._heard.put_nowait(None)  # whether or not anybody is there to hear of it

    async def leave(self) -> tuple[int, str]:
        for task in self._tasks:
            task.cancel()
        self._answer.cancel()
        await asyncio.to_thread(self._inbox.shutdown, True)  # which ends it in any case
        return self._ending

    async def _hear(self) -> None:
        try:
            async for frame in self._answer:
                self._heard.put_nowait(wire.read(io.BytesIO(frame)))
        except Exception as error:  # Ray's have many bases
            self._ending = _LOST, f"its replica is lost: {_line(error)}"
        self._heard.put_nowait(None)

    async def _renew(self) -> None:
        while True:
            self.write({"op": "renew", "ids": sorted(self._wanted)})
            await asyncio.sleep(LEASE_SECONDS / _RENEWALS)

    async def _send(self) -> None:
        while True:
            await self._inbox.put_async(await self._to_send.get())


def _queue(**options: Any) -> Any:
    return importlib.import_module("ray.util.queue").Queue(actor_options={"num_cpus": 0, **options})


def _is_alive(application: str) -> bool:
    """Whether the front that has deployed it still runs; one that was killed deletes nothing."""
    ray = importlib.import_module("ray")
    try:
        sign = ray.get_actor(application, namespace=_PREFIX)
        ray.get(sign.qsize.remote(), timeout=_ANSWER_SECONDS)
    except (ValueError, ray.exceptions.RayActorError):
        return False
    except ray.exceptions.GetTimeoutError:
        return True
    return True


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
