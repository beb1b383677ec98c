"""How fast images are served over HTTP; `python benchmarks/serving_http.py`, see README.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice, pairwise
from pathlib import Path

import torch
from serving_clients import (
    CAPTIONS,
    Server,
    asked,
    busy,
    own_megabytes,
    running,
    serving,
    together,
)

from calotype.cascade import Cascade, Stage, save_cascade
from calotype.cascade.pixels import to_pixels
from calotype.cascade.png import encode_png
from calotype.runtime import choose_runtime
from calotype.training.recipes import load_recipe

CLIENTS = 8
AIMS = {64: 2.0, 1024: 1.3}
_PLAIN = str(Path(__file__).with_name("serving_plain.py"))


def main() -> None:
    options = _parser().parse_args()
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "clients": clients,
        "previews": previews,
        "cancels": cancels,
        "overhead": overhead,
        "health": health,
        "memory": memory,
    }
    for name in options.parts or parts:
        parts[name](options)


def clients(options: argparse.Namespace) -> None:
    """Images a second for eight clients, beside one image a call and beside a plain handler."""
    with ExitStack() as stack:
        servers = {
            "together": stack.enter_context(_served(options)),
            "alone": stack.enter_context(_served(options, "--max-batch", "1")),
            "plain": stack.enter_context(running(_PLAIN, *_given(options))),
        }
        for size, images in zip(options.sizes, options.images, strict=True):
            rounds: dict[str, list[float]] = {name: [] for name in servers}
            for turn in range(options.rounds + 1):
                for name, server in servers.items():
                    seconds = _asked_by_all(server, size, images)
                    if turn > 0:  # the first is to get warm
                        rounds[name].append(seconds)
            for name, took in rounds.items():
                print(f"{size}²: {name} {images / statistics.median(took):.3f} images/s")
            for name in ("alone", "plain"):
                ratios = [b / a for a, b in zip(rounds["together"], rounds[name], strict=True)]
                _print(f"{size}²: together over {name}, aim {AIMS.get(size)}", ratios, " times")


def _asked_by_all(server: Server, size: int, images: int) -> float:
    """Seconds in which eight clients have had so many images."""
    own = threading.local()

    def one(number: int) -> None:
        if not hasattr(own, "connection"):
            own.connection = server.connect()
        server.image(own.connection, size, number)

    return together(CLIENTS, one, images)


def previews(options: argparse.Namespace) -> None:
    """Seconds to the first preview, and how long two steps of the largest call are."""
    with _served(options) as server:
        _asked_by_all(server, max(options.sizes), CLIENTS)
        _first_previews(server, "idle", options, min(options.sizes))
        for size in options.sizes:
            with busy(server, size):
                _first_previews(server, f"beside eight clients of {size}²", options, size)


def _first_previews(server: Server, what: str, options: argparse.Namespace, size: int) -> None:
    resolutions = [one["resolution"] for one in server.ask("GET", "/api/v1/capabilities")[
        "models"
    ][0]["stages"] if one["resolution"] <= size]  # fmt: skip
    before = {r: _calls(server, r) for r in resolutions}
    waits, side = [], min(options.sizes)
    for number in range(4 * options.rounds):
        begin = time.perf_counter()
        job = server.job(size=[side, side], seed=number)
        waits.append(next(at - begin for kind, _, at in server.events(job) if kind == "preview"))
        time.sleep(0.2)
    steps = {}
    for resolution, (calls, seconds) in before.items():
        now_calls, now_seconds = _calls(server, resolution)
        if now_calls > calls:
            steps[resolution] = (now_seconds - seconds) / (now_calls - calls)
    bound = 2 * max(steps.values()) + 0.1
    within = sum(wait <= bound for wait in waits)
    _print(f"first preview, {what}", waits, " s")
    print(f"  two of the longest steps and 100 ms: {bound:.3f} s; {within} of {len(waits)} within")


def _calls(server: Server, resolution: int) -> tuple[float, float]:
    return (
        server.metric("step_seconds_count", resolution),
        server.metric("step_seconds_sum", resolution),
    )


def cancels(options: argparse.Namespace) -> None:
    """From a cancel until its image's rows are free, and how long steps take meanwhile."""
    side, waits, steps = min(options.sizes), [], []
    with _served(options) as server:
        for number in range(4 * options.rounds):
            seeds = range(CLIENTS * number, CLIENTS * (number + 1))
            jobs = [server.job(size=[side, side], steps=256, seed=seed) for seed in seeds]
            at = [when for kind, _, when in islice(server.events(jobs[-1]), 12) if kind == "step"]
            steps.append(statistics.median(b - a for a, b in pairwise(at)))
            begin = time.perf_counter()
            server.ask("DELETE", f"/api/v1/jobs/{jobs[number % CLIENTS]}")
            while server.ask("GET", "/api/v1/status")["queue"]["active"] == CLIENTS:
                time.sleep(0.02)  # more questions would slow the step
            waits.append(time.perf_counter() - begin)
            for job in jobs:
                server.ask("DELETE", f"/api/v1/jobs/{job}")
            while server.ask("GET", "/api/v1/status")["queue"]["active"]:
                time.sleep(0.01)
    _print("from a cancel until its rows are free", waits, " s")
    _print("  a step meanwhile", steps, " s")


def overhead(options: argparse.Namespace) -> None:
    """One client beside sampling and encoding in this process, in turns."""
    torch.set_num_threads(choose_runtime("cpu", None, options.threads).threads)
    cascade = Cascade.load(options.model)
    with _served(options) as server, closing(server.connect()) as connection:
        for size in options.sizes:
            added, ratios = [], []
            for number in range(4 * options.rounds + 1):
                begin = time.perf_counter()
                made = cascade.sample([CAPTIONS[number % 4]], seeds=[number], stop_at=size)
                encode_png(to_pixels(made.images[-1])[0])
                between = time.perf_counter()
                server.image(connection, size, number)
                served = time.perf_counter() - between
                if number > 0:
                    added.append(served - (between - begin))
                    ratios.append(served / (between - begin))
            _print(f"{size}²: HTTP adds", [1000 * one for one in added], " ms")
            _print(f"{size}²: HTTP to sampling and encoding", ratios, " times")


def health(options: argparse.Namespace) -> None:
    """Milliseconds of `/healthz` while eight clients are served."""
    with _served(options) as server, closing(server.connect()) as connection:
        for size, images in zip(options.sizes, options.images, strict=True):
            waits: list[float] = []
            work = threading.Thread(target=_asked_by_all, args=(server, size, images))
            work.start()
            while work.is_alive():
                begin = time.perf_counter()
                asked(connection, "GET", "/healthz")
                waits.append(1000 * (time.perf_counter() - begin))
                time.sleep(0.02)
            worst = statistics.quantiles(waits, n=100)[98]
            print(
                f"{size}²: /healthz {statistics.median(waits):.1f} ms, 99 of 100 within "
                f"{worst:.1f} ms, at most {max(waits):.1f} ms ({len(waits)} requests)"
            )


def memory(options: argparse.Namespace) -> None:
    """Megabytes of all processes after so many requests of a tiny model, a tenth cancelled."""
    with tempfile.TemporaryDirectory() as folder:
        _tiny(Path(folder) / "tiny")
        with serving("--model", f"tiny={folder}/tiny", "--threads", "1") as server:
            found = {}
            for done in _in_parts(options.requests):
                seconds = together(CLIENTS, lambda number: _one_of_many(server, number), done[1])
                time.sleep(1.0)
                found[done[0]] = own_megabytes(server.pid)
                print(
                    f"after {done[0]} requests {found[done[0]]:.1f} MB, "
                    f"{done[1] / seconds:.0f} requests/s",
                    flush=True,
                )
    first, *_, last = found.values()
    print(f"memory at the end over that after the first part: {last / first:.3f}, aim 1.05")


def _in_parts(requests: int) -> Iterator[tuple[int, int]]:
    """Requests so far and of each part: ten in all."""
    for part in range(10):
        yield requests * (part + 1) // 10, requests // 10


def _one_of_many(server: Server, number: int) -> None:
    """A request: whole, or followed with previews, or cancelled."""
    if number % 2:
        with closing(server.connect()) as connection:
            server.image(connection, 16 + number % 17, number)
        return
    job = server.job(seed=number, steps=1 + number % 4)
    for kind, _, _ in server.events(job):
        if number % 10 == 0 and kind in ("started", "step"):
            server.ask("DELETE", f"/api/v1/jobs/{job}")
            return


def _tiny(folder: Path) -> None:
    """The tiny recipe's cascade with random weights."""
    stages = [Stage(one.stage) for one in load_recipe("tiny").cascade]
    save_cascade(folder, stages=stages, text_encoder="bytes:16", name="tiny")


@contextmanager
def _served(options: argparse.Namespace, *more: str) -> Iterator[Server]:
    model = () if options.model is None else ("--model", f"default={options.model}")
    threads = () if options.threads is None else ("--threads", str(options.threads))
    with serving(*model, *threads, *more) as server:
        yield server


def _given(options: argparse.Namespace) -> list[str]:
    named = {"--model": options.model, "--threads": options.threads}
    return [text for k, v in named.items() if v is not None for text in (k, str(v))]


def _print(what: str, values: Sequence[float], unit: str) -> None:
    low, high = min(values), max(values)
    print(f"{what}: {statistics.median(values):.3f}{unit} ({low:.3f} to {high:.3f})", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="all of them if not given")
    parser.add_argument("--model", help="a cascade folder; the embedded cascade if not given")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--images", type=int, nargs="+", default=[64, 16], help="of each size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--requests", type=int, default=10_000, help="of `memory`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
