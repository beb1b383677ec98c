"""How a server was asked to be: one record, for the front and for the engine it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kept = Literal["page", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Options of `calotype serve`; None = the engine's or the system's own.

    Attributes:
        host: address to listen at.
        port: 0 = any that is free.
        models: NAME=FOLDER[+LORA.safetensors:WEIGHT], the first is the default; none = the
            embedded cascade as "default".
        data: folder of the store.
        keep: of which jobs images are kept: the page's, all, none.
        keep_bytes: of all kept files; the oldest that are no favourites go.
        max_batch: rows of a call at most.
        memory: bytes that loaded models may take.
        idle_unload: seconds after which an unused model goes.
        device: of the engine.
        dtype: of the engine.
        threads: of the engine.
        drain: seconds that running work has after SIGTERM.
        step_timeout: seconds without a word of a working engine after which it is killed.
        deadline: seconds that a job may run.
        active: images that an engine works on at once.
        most_waiting: images in the queue.
        most_of_client: of them of one client.
        cors_origins: sites whose pages may use the APIs.
        allowed_hosts: further names of this server.
        public_url: under which clients reach it.
        cfg: how sdapi's `cfg_scale` is read.
        metadata: whether files carry their recipe.
        c2pa_cert: certificate chain that files are signed with.
        c2pa_key: its private key.
        log_prompts: prompts may be logged.
        ray: address of a Ray cluster whose replicas are the engines; None = a child process.
        replicas: least and most of them.
        gpus_per_replica: that Ray sets aside for each, a fraction allowed; 0 = none.
        engine_command: what is run as the engine; None = this package's.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    models: tuple[str, ...] = ()
    data: Path | None = None
    keep: Kept = "page"
    keep_bytes: int | None = None
    max_batch: int | None = None
    memory: int | None = None
    idle_unload: float | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    drain: float = 30.0
    step_timeout: float = 120.0
    deadline: float = 300.0
    active: int = 16
    most_waiting: int = 64
    most_of_client: int = 32
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    public_url: str | None = None
    cfg: Literal["linear", "exact"] = "linear"
    metadata: bool = True
    c2pa_cert: Path | None = None
    c2pa_key: Path | None = None
    log_prompts: bool = False
    ray: str | None = None
    replicas: tuple[int, int] = (1, 1)
    gpus_per_replica: float = 0.0
    engine_command: tuple[str, ...] | None = None
