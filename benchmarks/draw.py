"""Time and memory of drawing one image: `python benchmarks/draw.py`; see README.md beside it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPTION = "a red apple, noto style"
_IMPORT = """
import sys, time
began = time.perf_counter()
import calotype
print(time.perf_counter() - began, "torch" in sys.modules)
"""


def main() -> None:
    options = _parser().parse_args()
    found: dict[str, Any] = {}
    if not options.stages_only:
        found["import"] = measure_import(options.repeats)
        found["command"] = [
            measure_command(options, size, options.repeats) for size in _sizes(options)
        ]
    found["stages"] = measure_stages(options)
    print(json.dumps(found, indent=1) if options.json else _report(found))


def measure_import(repeats: int) -> dict[str, Any]:
    """Seconds of `import calotype` in a new process, and whether that imported torch."""
    runs = [_output([sys.executable, "-c", _IMPORT]).split() for _ in range(repeats + 1)]
    seconds = min(float(run[0]) for run in runs)
    return {"seconds": seconds, "imports_torch": runs[0][1] == "True"}


def measure_command(options: argparse.Namespace, size: int, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of `calotype sample`, from process start to finished file."""
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "calotype", "sample", CAPTION, "--seed", "1"]
        command += ["--size", str(size), "-o", str(Path(folder) / "image.png")]
        command += ["--model", options.model] if options.model else []
        command += ["--threads", str(options.threads)] if options.threads else []
        command += ["--dtype", options.dtype] if options.dtype else []
        for _ in range(repeats):
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.perf_counter() - began)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise SystemExit(f"the command failed: {' '.join(command)}")
            peaks.append(_bytes(usage.ru_maxrss))
    return {"size": size, "first": seconds[0], "best": min(seconds), "peak_bytes": max(peaks)}


def measure_stages(options: argparse.Namespace) -> dict[str, Any]:
    """Each stage by itself in this process, and its convolutions and matrix products alone."""
    from kernels import recorded

    from calotype.cascade import Cascade
    from calotype.runtime import choose_runtime

    began = time.perf_counter()
    cascade = Cascade.load(options.model)
    loading = time.perf_counter() - began
    runtime = choose_runtime(None, options.dtype, options.threads)
    runtime.apply(cascade.stages)
    encoder = cascade.text_encoder
    text = 0.0
    if encoder is not None:
        encoder([CAPTION])
        began = time.perf_counter()
        encoder([CAPTION])
        text = time.perf_counter() - began
        # Embedded once: what is timed below is the stages.
        cascade = Cascade(_Remembering(encoder), cascade.stages)  # type: ignore[arg-type]
    stages, lowres = [], None
    for stage in cascade.stages:
        size = stage.config.resolution
        draw = _Draw(cascade, size, lowres)
        with recorded() as recording:
            image = draw()
        seconds = [_timed(draw) for _ in range(options.repeats)]
        alone = recording.replay(options.repeats)
        stages.append(
            {
                "resolution": size,
                "steps": stage.config.sampling.steps,
                "seconds": statistics.median(seconds),
                "best": min(seconds),
                "kernels": alone,
                "ratio": min(seconds) / alone,
                "gflop": recording.flops / 1e9,
            }
        )
        lowres = image
    return {"runtime": runtime.to_dict(), "loading": loading, "text": text, "stages": stages}


class _Draw:
    """Draws with one stage, from the caption or from the image of the stage before."""

    def __init__(self, cascade: Any, size: int, lowres: Any) -> None:
        self.cascade, self.size, self.lowres = cascade, size, lowres
        self.captions = [CAPTION if cascade.text_encoder_spec != "none" else ""]

    def __call__(self) -> Any:
        options = {"seeds": [1], "stop_at": self.size}
        if self.lowres is None:
            return self.cascade.sample(self.captions, **options).images[-1]
        return self.cascade.upscale(self.lowres, self.captions, **options).images[-1]


class _Remembering:
    """A text encoder that embeds each list of captions once."""

    def __init__(self, encoder: Any) -> None:
        self._encoder, self._known = encoder, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __call__(self, captions: Sequence[str]) -> Any:
        key = tuple(captions)
        if key not in self._known:
            self._known[key] = self._encoder(captions)
        return self._known[key]


def _timed(call: _Draw) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _report(found: dict[str, Any]) -> str:
    stages = found["stages"]
    lines = []
    if "import" in found:
        torch = "with" if found["import"]["imports_torch"] else "without"
        lines.append(f"import calotype      {found['import']['seconds']:8.3f} s  ({torch} torch)")
        lines += [
            f"sample --size {run['size']:<6} {run['best']:8.2f} s  first {run['first']:.2f} s, "
            f"peak memory {run['peak_bytes'] / 1e6:.0f} MB"
            for run in found["command"]
        ]
    runtime = ", ".join(f"{name} {value}" for name, value in stages["runtime"].items())
    lines += [
        "",
        f"in one process ({runtime}):",
        f"loading {stages['loading']:.2f} s, embedding the caption {stages['text']:.3f} s",
        "stage   steps  seconds  convolutions and products alone  ratio    GFLOP",
    ]
    lines += [
        f"{s['resolution']:<7} {s['steps']:<6} {s['seconds']:<8.3f} {s['kernels']:<32.3f} "
        f"{s['ratio']:<8.2f} {s['gflop']:.1f}"
        for s in stages["stages"]
    ]
    total = sum(stage["seconds"] for stage in stages["stages"])
    return "\n".join([*lines, f"sampling, all stages: {total:.2f} s"])


def _sizes(options: argparse.Namespace) -> list[int]:
    from calotype.cascade.find import open_cascade

    stages = open_cascade(options.model).config.stages
    return list(dict.fromkeys((stages[-1].resolution, stages[0].resolution)))


def _bytes(peak: int) -> int:
    return peak if sys.platform == "darwin" else peak * 1024


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="cascade or run folder; default: the embedded cascade")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", help="float32 or bfloat16")
    parser.add_argument("--stages-only", action="store_true", help="skip the cold commands")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    main()
