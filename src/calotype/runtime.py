"""Where and how networks are computed: device, number type of the network calls, threads.

bfloat16 is chosen on a CPU only if the CPU has instructions for it and a short measurement, kept
in the user's cache folder, found it faster: the instructions alone do not say so.
"""

from __future__ import annotations

import functools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import make_folder, write_file
from calotype.storage.places import cache_folder
from calotype.storage.reading import read_object

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_ALIASES = {"fp32": "float32", "f32": "float32", "bf16": "bfloat16"}
_MIN_GAIN = 1.15  # bfloat16 must be this much faster: measurements are noisy
_MOST_CACHE_BYTES = 1_000_000
_BUDGET_SECONDS = 0.25


@dataclass(frozen=True)
class Runtime:
    """How to compute.

    Args:
        device: as torch names it.
        dtype: number type of the network calls, a key of `DTYPES`.
        threads: threads of one operation on the CPU.
        forced: whether `dtype` was asked for; then base stages use it too.
    """

    device: str
    dtype: str
    threads: int
    forced: bool = False

    def apply(self, stages: Iterable[Any], prior: nn.Module | None = None) -> None:
        """Set the threads, move the stages and the prior, choose the number type of each stage.

        A base stays in float32 unless the type was asked for: its image decides all others, and
        in bfloat16 it would differ visibly between batch sizes.
        """
        torch.set_num_threads(self.threads)
        if prior is not None:
            prior.to(self.device)
        for stage in stages:
            stage.to(self.device)
            keep = stage.config.lowres_resolution is None and not self.forced
            stage.compute_dtype = torch.float32 if keep else DTYPES[self.dtype]

    def to_dict(self) -> dict[str, Any]:
        """What images and checkpoints store."""
        return {"device": self.device, "dtype": self.dtype, "threads": self.threads}


def choose_runtime(
    device: str | None = None, dtype: str | None = None, threads: int | None = None
) -> Runtime:
    """Fill in what the user left open.

    Args:
        device: e.g. "cpu", "cuda", "cuda:1", "mps"; None takes a GPU if there is one.
        dtype: "float32" or "bfloat16"; None decides by measurement.
        threads: 1 to 4096; None takes the cores this process may use.

    Raises:
        UsageError: an unknown device or number type, or threads out of range.
    """
    name = _device(device)
    if dtype is not None:
        dtype = _ALIASES.get(dtype, dtype)
        if dtype not in DTYPES:
            raise UsageError(f"got dtype {dtype!r}; expected one of {list(DTYPES)}")
    if threads is not None and not 1 <= threads <= 4096:
        raise UsageError(f"got threads={threads}; expected 1 to 4096")
    count = usable_threads() if threads is None else threads
    return Runtime(name, dtype or _default_dtype(name, count), count, forced=dtype is not None)


def usable_threads() -> int:
    """Threads torch would use, but no more than the container's quota of processors."""
    count = torch.get_num_threads()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        quota_cores = max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return count
    return min(count, quota_cores)


def _device(device: str | None) -> str:
    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    expected = "expected cpu, cuda (or cuda:1 and so on) or mps"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:  # which would name every backend of torch
        raise UsageError(f"got device {device!r:.80}; {expected}") from error
    if kind == "meta":
        raise UsageError(f"got device {device!r}; {expected}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = f"{str(error).splitlines()[0]:.120}"
        raise UsageError(f"got device {device!r}; {expected} that works here: {reason}") from error
    return device


def _default_dtype(device: str, threads: int) -> str:
    kind = torch.device(device).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if kind != "cpu" or not any(bfloat16_features().values()):
        return "float32"
    return "bfloat16" if bfloat16_gain(threads) >= _MIN_GAIN else "float32"


def bfloat16_features() -> dict[str, bool]:
    """Which of the CPU's bfloat16 instructions torch can use."""
    asked = {"amx": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return {name: bool(getattr(torch.cpu, ask, bool)()) for name, ask in asked.items()}


@functools.cache
def cpu_model() -> str:
    """The processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def bfloat16_gain(threads: int) -> float:
    """Time of float32 over time of bfloat16 on this CPU, from the cache or measured (0.3 s)."""
    features = "+".join(name for name, has in bfloat16_features().items() if has)
    key = f"{cpu_model()} {features}, torch {torch.__version__}, {threads} threads"
    return cached_measurement("bfloat16", key, lambda: _measure_gain(threads))


def cached_measurement(name: str, key: str, measure: Callable[[], float]) -> float:
    """A number about this machine, from the user's cache folder or else measured and kept there.

    Args:
        name: of the file.
        key: everything that the number depends on.
        measure: called where the key is not known yet.
    """
    known = _read_cache(name)
    if key in known:
        return known[key]
    known[key] = measure()
    path = _cache_file(name)
    if path is not None:
        with suppress(CalotypeError):  # a cache that cannot be written costs a moment later
            make_folder(path.parent)
            write_file(path, json.dumps(known, indent=1).encode())
    return known[key]


def known_measurement(name: str, key: str) -> float | None:
    """What `cached_measurement` has kept; None where nothing was measured yet."""
    return _read_cache(name).get(key)


def _cache_file(name: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"{name}.json"


def _read_cache(name: str) -> dict[str, float]:
    """What is kept there; a damaged file is measured anew."""
    path = _cache_file(name)
    found = {} if path is None else read_object(path, most_bytes=_MOST_CACHE_BYTES)
    largest = sys.float_info.max  # JSON has NaN, infinities and numbers of 400 digits
    return {
        k: float(v) for k, v in found.items() if isinstance(v, int | float) and abs(v) <= largest
    }


@torch.no_grad()
def _measure_gain(threads: int) -> float:
    """The networks' most common operation, a 3x3 convolution, in both number types by turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pairs = {}
        for dtype in DTYPES.values():
            weight = torch.ones(128, 128, 3, 3, dtype=dtype)
            weight = weight.contiguous(memory_format=torch.channels_last)
            x = torch.ones(2, 128, 32, 32, dtype=dtype)
            pairs[dtype] = (x.contiguous(memory_format=torch.channels_last), weight)
        best = dict.fromkeys(pairs, float("inf"))
        start = time.perf_counter()
        for turn in range(8):
            for dtype, (x, weight) in pairs.items():
                begin = time.perf_counter()
                functional.conv2d(x, weight, padding=1)
                best[dtype] = min(best[dtype], time.perf_counter() - begin)
            if turn >= 1 and time.perf_counter() - start > _BUDGET_SECONDS:
                break
    finally:
        torch.set_num_threads(before)
    return best[torch.float32] / best[torch.bfloat16]
