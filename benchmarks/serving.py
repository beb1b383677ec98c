"""How fast images are served; `python benchmarks/serving.py engine`, see README.md."""

from __future__ import annotations

import argparse
import itertools
import statistics
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import greenlet
import torch

from calotype.cascade.png import encode_png
from calotype.cascade.results import drain
from calotype.runtime import choose_runtime
from calotype.serving.engine import limits as limits_of_calls
from calotype.serving.engine.image import Image
from calotype.serving.engine.limits import Limits
from calotype.serving.engine.loop import Loop
from calotype.serving.engine.open import open_task
from calotype.serving.engine.orders import Order
from calotype.serving.engine.outgoing import Outgoing
from calotype.serving.engine.shelf import Shelf, open_model, parse_entry
from calotype.serving.engine.tasks import Source
from calotype.serving.job import JobRequest

CAPTIONS = ("a red fox", "pizza with mushrooms", "a blue whale under a rainbow", "an old clock")
AIMS = {64: 2.0, 1024: 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    engine = commands.add_parser("engine", help="images a second of the engine alone")
    engine.add_argument("--sizes", type=int, nargs="+", default=[64, 1024])
    engine.add_argument("--images", type=int, nargs="+", default=[64, 16], help="for each size")
    engine.add_argument("--clients", type=int, default=8)
    engine.add_argument("--rounds", type=int, default=5)
    engine.add_argument("--threads", type=int)
    engine.add_argument("--model", default="default")
    engine.add_argument(
        "--processor", action="store_true", help="seconds of the processor, on a busy machine"
    )
    commands.add_parser("switch", help="what suspending an image costs")
    options = parser.parse_args()
    if options.command == "switch":
        switches()
    else:
        torch.set_grad_enabled(False)
        compare(options)


class Clients(Outgoing):
    """Clients of an engine, each of whom orders its next image when it has its last."""

    def __init__(self, stream: Any, size: int, images: int) -> None:
        super().__init__(stream)
        self.size, self.numbers, self.left = size, iter(range(images)), images
        self.loop: Loop | None = None
        self.network: Counter[int] = Counter()
        self.rows: Counter[int] = Counter()
        self.calls: Counter[int] = Counter()

    def order(self) -> None:
        """The next image, if there is one."""
        number = next(self.numbers, None)
        if number is not None and self.loop is not None:
            self.loop.post(partial(self.loop.start, order(number, self.size)))

    def tell(self, head: dict[str, Any]) -> None:
        """As `Outgoing`; counts network calls."""
        super().tell(head)
        if head["op"] == "call":
            self.network[head["resolution"]] += head["seconds"]
            self.rows[head["resolution"]] += head["rows"]
            self.calls[head["resolution"]] += 1

    def finish(self, image: Image) -> None:
        """As `Outgoing`; its client orders the next."""
        super().finish(image)
        self.left -= 1
        self.order()


def order(number: int, size: int) -> Order:
    caption = CAPTIONS[number % len(CAPTIONS)]
    return Order(number, JobRequest(prompt=caption, size=(size, size)), seed=number)


def served(shelf: Shelf, limits: Limits, size: int, images: int, clients: int) -> Clients:
    """All images by an engine; clients come one after another, a step apart."""
    with Path("/dev/null").open("wb") as nothing:
        sink = Clients(nothing, size, images)
        sink.loop = loop = Loop(shelf, limits, sink)
        for turn in itertools.count():
            if turn < clients:
                sink.order()
            loop.turn()
            if sink.left == 0:
                break
        sink.close()
    return sink


def plain(shelf: Shelf, size: int, images: int) -> None:
    """What a handler with a lock round the same generator does: one image after another."""
    model = shelf.find(None)
    assert model.loaded is not None
    for number in range(images):
        one = order(number, size)
        task = open_task(Source(model.folder, model.loaded), one.request, one.seed, None)
        made = drain(task.generate())
        encode_png(made.pixels, made.recipe)


def compare(options: argparse.Namespace) -> None:
    clock = time.process_time if options.processor else time.perf_counter
    if options.processor:  # a step that waits for others' work is long: that says nothing here
        limits_of_calls.STEP_SECONDS *= 10
    runtime = choose_runtime("cpu", None, options.threads)
    torch.set_num_threads(runtime.threads)
    shelf = Shelf([open_model(parse_entry(options.model), runtime)])
    model = shelf.find(None)
    shelf.load(model).result()
    shelf.settled(model)
    for size, images in zip(options.sizes, options.images, strict=True):
        limits = {"together": Limits(), "alone": Limits(1)}
        took: dict[str, list[float]] = {"together": [], "alone": [], "plain": []}
        last = {}
        for turn in range(options.rounds + 1):
            for name in ("together", "alone"):
                begin = clock()
                last[name] = served(shelf, limits[name], size, images, options.clients)
                took[name].append(clock() - begin)
            begin = clock()
            plain(shelf, size, images)
            took["plain"].append(clock() - begin)
            if turn == 0:  # to get warm, and to know how large calls may be
                took = {name: [] for name in took}
        report(size, images, took, last)


def report(size: int, images: int, took: dict[str, list[float]], last: dict[str, Clients]) -> None:
    rates = {name: images / statistics.median(each) for name, each in took.items()}
    for name, rate in rates.items():
        print(f"{size:5} {name:9} {rate:7.3f} images/s")
    for name in ("alone", "plain"):
        ratios = [b / a for a, b in zip(took["together"], took[name], strict=True)]
        print(
            f"{size:5} together/{name}: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), aim {AIMS.get(size, 1.0)}"
        )
    for name, sink in last.items():
        network = sum(sink.network.values())
        parts = ", ".join(
            f"{resolution}: {seconds:.2f} s, {sink.rows[resolution]} rows in "
            f"{sink.calls[resolution]} calls"
            for resolution, seconds in sorted(sink.network.items())
        )
        whole = took[name][-1]
        print(f"{size:5} {name:9} {whole:.2f} s, networks for {network:.2f} s: {parts}")


def switches(count: int = 20_000) -> None:
    """Suspending and resuming: greenlets, threads that hand on a baton, generators."""
    main_one = greenlet.getcurrent()

    def work() -> None:
        while True:
            main_one.switch()

    one = greenlet.greenlet(work)
    print(f"greenlet  {seconds_each(one.switch, count) * 1e6:7.2f} us")
    go, back = threading.Semaphore(0), threading.Semaphore(0)

    def thread() -> None:
        while True:
            go.acquire()
            back.release()

    threading.Thread(target=thread, daemon=True).start()

    def there_and_back() -> None:
        go.release()
        back.acquire()

    print(f"threads   {seconds_each(there_and_back, count) * 1e6:7.2f} us")
    forever = itertools.repeat(None)
    print(f"generator {seconds_each(lambda: next(forever), count) * 1e6:7.2f} us")


def seconds_each(call: Any, count: int) -> float:
    call()
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


if __name__ == "__main__":
    main()
