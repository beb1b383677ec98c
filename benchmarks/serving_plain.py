"""What `calotype serve` is measured against: a handler with a lock round `Cascade.sample`."""

from __future__ import annotations

import argparse
import base64
import socket
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from calotype.cascade import Cascade
from calotype.cascade.pixels import to_pixels
from calotype.cascade.png import encode_png
from calotype.runtime import choose_runtime


def application(cascade: Cascade) -> FastAPI:
    """One image after another, each request in a thread."""
    app, lock = FastAPI(), threading.Lock()

    @app.post("/v1/images/generations")
    def generations(asked: dict[str, Any]) -> dict[str, Any]:
        side = int(asked["size"].partition("x")[0])
        with lock:
            made = cascade.sample([asked["prompt"]], seeds=[asked["seed"]], stop_at=side)
            data = encode_png(to_pixels(made.images[-1])[0])
        return {"data": [{"b64_json": base64.b64encode(data).decode()}]}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    torch.set_num_threads(choose_runtime("cpu", None, options.threads).threads)
    app = application(Cascade.load(options.model))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"serving on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
