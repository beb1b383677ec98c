"""How long a computation's convolutions and matrix products take when nothing else happens.

They are recorded while the computation runs, by shape, stride and number type, and then carried
out alone in the same order, on made-up numbers, in the same process. What a computation takes
beyond that is the price of everything else: norms, activations, copies, Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

COUNTED = frozenset(
    {
        "convolution",
        "convolution_backward",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "linear",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    }
)


@dataclass(frozen=True)
class TensorShape:
    """What decides how long an operation on a tensor takes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def make(self) -> Tensor:
        """A tensor like it, with numbers that are neither huge nor denormal."""
        made = torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)
        return made.fill_(1) if self.dtype == torch.bool else made.fill_(0.5)


@dataclass
class Recording:
    """Operations in the order in which they happened, each as an index into `distinct`."""

    distinct: list[Callable[[], object]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    flops: int = 0

    def replay(self, repeats: int = 3) -> float:
        """Seconds of all operations alone, the best of some repeats."""
        best = float("inf")
        with torch.no_grad():
            for operation in self.distinct:
                operation()  # kernels are chosen and buffers made
            for _ in range(repeats):
                began = time.perf_counter()
                for index in self.order:
                    self.distinct[index]()
                _finish()
                best = min(best, time.perf_counter() - began)
        return best


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.recording = Recording()
        self._places: dict[str, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func.overloadpacket.__name__ in COUNTED:
            self._record(func, args, kwargs)
        return func(*args, **kwargs)

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shapes = [_described(a) for a in args]
        named = {name: _described(a) for name, a in kwargs.items()}
        key = repr((str(func), shapes, named))
        if key not in self._places:
            self._places[key] = len(self.recording.distinct)
            made = [_made(a) for a in shapes]
            made_named = {name: _made(a) for name, a in named.items()}
            self.recording.distinct.append(lambda: func(*made, **made_named))
        self.recording.order.append(self._places[key])


@contextmanager
def recorded() -> Iterator[Recording]:
    """Record the convolutions and matrix products of a block; its FLOPs are counted as well."""
    recorder = _Recorder()
    # The counter does not know the CPU's attention by itself.
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    counter = FlopCounterMode(display=False, custom_mapping=attention)
    with counter, recorder:
        yield recorder.recording
    recorder.recording.flops = int(counter.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    """From shapes, as the counter calls it."""
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return TensorShape(
            tuple(value.shape), tuple(value.stride()), value.dtype, str(value.device)
        )
    return value


def _made(value: Any) -> Any:
    return value.make() if isinstance(value, TensorShape) else value


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
