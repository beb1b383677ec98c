"""`calotype serve`: the APIs that people's programs speak, and a page, until Ctrl-C."""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path
from typing import Any

from calotype.cli import options as shared
from calotype.cli import serve_options as given
from calotype.cli.data.ray import gpus_of_worker
from calotype.errors import MissingExtra, UsageError
from calotype.storage.places import data_folder

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def serve(
    host: given.Host = "127.0.0.1",
    port: given.Port = 8000,
    open_page: given.OpenPage = False,
    model: given.Model = None,
    data: given.Data = None,
    keep: given.Keep = "page",
    keep_bytes: given.KeepBytes = None,
    max_batch: given.MaxBatch = None,
    memory: given.Memory = None,
    idle_unload: given.IdleUnload = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    threads: shared.Threads = None,
    drain: given.Drain = 30.0,
    step_timeout: given.StepTimeout = 120.0,
    deadline: given.Deadline = 300.0,
    new_key: given.NewKey = None,
    delete_key: given.DeleteKey = None,
    list_keys: given.ListKeys = False,
    cors_origin: given.CorsOrigin = None,
    allowed_host: given.AllowedHost = None,
    public_url: given.PublicUrl = None,
    cfg: given.Cfg = "linear",
    metadata: given.Metadata = True,
    c2pa_cert: given.C2paCert = None,
    c2pa_key: given.C2paKey = None,
    log_prompts: given.LogPrompts = False,
    ray: given.Ray = None,
    replicas: given.Replicas = None,
    gpus_per_replica: given.GpusPerReplica = None,
) -> None:
    """Serve models to OpenAI's and AUTOMATIC1111's clients, and on a page, until Ctrl-C."""
    if new_key is not None or delete_key is not None or list_keys:
        _change_keys(_folder(data), new_key, delete_key, as_list=list_keys)
        return
    _check_seconds("--drain", drain)
    _check_seconds("--step-timeout", step_timeout)
    _check_seconds("--deadline", deadline)
    _check_seconds("--idle-unload", idle_unload or 0.0)
    if max_batch is not None and max_batch < 1:
        raise UsageError(f"got --max-batch {max_batch}; expected at least 1")
    _check_signing(c2pa_cert, c2pa_key, metadata=metadata)
    try:
        from calotype.serving.front.serve import serve as run
        from calotype.serving.front.settings import ServeSettings
    except ImportError as error:
        raise MissingExtra("serve", error.name or "fastapi") from error
    settings = ServeSettings(
        host=host,
        port=port,
        models=tuple(model or ()),
        data=_folder(data),
        keep=_one_of("--keep", keep, ("page", "all", "none")),
        keep_bytes=_bytes("--keep-bytes", keep_bytes),
        max_batch=max_batch,
        memory=_bytes("--memory", memory),
        idle_unload=idle_unload,
        device=device,
        dtype=dtype,
        threads=threads,
        drain=drain,
        step_timeout=step_timeout,
        deadline=deadline,
        cors_origins=tuple(cors_origin or ()),
        allowed_hosts=tuple(allowed_host or ()),
        public_url=public_url,
        cfg=_one_of("--cfg", cfg, ("linear", "exact")),
        metadata=metadata,
        c2pa_cert=c2pa_cert,
        c2pa_key=c2pa_key,
        log_prompts=log_prompts,
        ray=ray,
        replicas=_replicas(replicas, ray),
        gpus_per_replica=gpus_of_worker(gpus_per_replica, ray, "--gpus-per-replica"),
    )
    run(settings, lambda address: _say_ready(address, open_page=open_page))


def _change_keys(folder: Path, new: str | None, old: str | None, *, as_list: bool) -> None:
    from calotype.serving.front import keys

    if old is not None:
        keys.delete_key(folder, old)
    if new is not None:
        print(keys.new_key(folder, new))
    if as_list:
        for name in keys.list_keys(folder):
            print(name)


def _one_of(option: str, text: str, allowed: tuple[str, ...]) -> Any:
    if text not in allowed:
        raise UsageError(
            f"got {option} {text!r}; expected {', '.join(allowed[:-1])} or {allowed[-1]}"
        )
    return text


def _check_seconds(option: str, seconds: float) -> None:
    if not 0 <= seconds <= 1e6:
        raise UsageError(f"got {option} {seconds:g}; expected seconds from 0 to a million")


def _bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"got {option} {text!r}; expected bytes, as 20G or 500M")
    return int(float(found[1]) * 1024 ** _UNITS[found[2].lower()])


def _check_signing(cert: Path | None, key: Path | None, *, metadata: bool) -> None:
    if (cert is None) != (key is None):
        one, other = ("--c2pa-cert", "--c2pa-key")[:: 1 if key is None else -1]
        raise UsageError(f"got {one} without {other}; expected both, or neither")
    if cert is not None and not metadata:
        raise UsageError(
            "got --c2pa-cert with --no-metadata; a signature is metadata: expected one of them"
        )


def _replicas(text: str | None, ray: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    if ray is None:
        raise UsageError(f"got --replicas {text} without --ray, whose cluster they are on")
    found = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}))?", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2] or found[1]):
        raise UsageError(f"got --replicas {text!r}; expected least and most, as 1:4")
    return int(found[1]), int(found[2] or found[1])


def _folder(data: Path | None) -> Path:
    folder = data_folder() if data is None else data
    if folder is None:
        raise UsageError("there is no home folder to keep images in; expected --data FOLDER")
    return folder / "serve" if data is None else folder


def _say_ready(address: str, *, open_page: bool) -> None:
    print(f"serving on {address}", flush=True)
    if open_page:
        webbrowser.open(address)
