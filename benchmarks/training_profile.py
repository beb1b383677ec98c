"""Where a step of this trainer goes, and what was tried to make it shorter.

`python benchmarks/training.py --profile` prints three things for the recipe of the embedded base:

- the operations of a step by the time they take themselves, as torch's profiler sees them;
- the ratio of a step to its convolutions and matrix products (attention included, forward and
  backward) carried out alone, in the same order, on made-up numbers (`kernels.py`);
- a table of changes, each against the trainer as it is, in turns: a change that makes a step
  slower is one that the trainer is right not to have.

Steps are the trainer's own. Images and embedded captions lie in memory, except where loading
them is what is measured: there they come from a folder (PNG, or `--data`) that is decoded anew for
every batch, and from the trainer's store of embedded captions. Between turns no thread is at work.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import kernels
import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from training_peers import count_flops

from calotype.conditioning import TextEmbedding
from calotype.config.diffusion import DiffusionTraining
from calotype.data.batch import Batch, BatchPlan
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.data.prefetch import prefetched
from calotype.data.source import ExampleSource, all_captions
from calotype.emoji.captions import GRAMMAR
from calotype.tasks.captions import TextLookup, embed_ahead
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.text.byte import ByteTextEncoder
from calotype.training.ema import EMA
from calotype.training.recipes import load_recipe
from calotype.training.state import TrainState
from calotype.training.step import train_step

TOKENS = 12
IMAGES = 192
SIDE = 256
KERNELS = frozenset(
    {
        "aten::mkldnn_convolution",
        "aten::convolution_backward",
        "aten::_slow_conv2d_forward",
        "aten::thnn_conv2d",
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "aten::mkldnn_linear",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    }
)

Feed = Iterator[tuple[Batch, TextLookup]]


@dataclass
class Setting:
    """The trainer with one thing changed.

    Args:
        name: what differs.
        state: that is trained.
        feed: opens the batches, with what looks their captions up.
        patched: what else is different while it steps.
        dtype: of the network.
        rates: images a second, one number a round.
    """

    name: str
    state: TrainState
    feed: Callable[[], AbstractContextManager[Feed]]
    patched: Callable[[], AbstractContextManager[Any]] = nullcontext
    dtype: torch.dtype = torch.float32
    rates: list[float] = field(default_factory=list)

    def turn(self, config: DiffusionTraining, steps: int) -> float:
        """Seconds of some steps, after one untimed; batches are opened and closed here."""
        with self.feed() as feed, self.patched():
            cast(Any, self.state.model).compute_dtype = self.dtype
            _step(self.state, next(feed))
            began = time.perf_counter()
            for _ in range(steps):
                _step(self.state, next(feed))
            return time.perf_counter() - began


def begun(config: DiffusionTraining) -> TrainState:
    """A stage before its first step; its captions come with each batch."""
    return TrainState(DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32)))


def _step(state: TrainState, fed: tuple[Batch, TextLookup]) -> None:
    batch, text = fed
    cast(Any, state.task).text = text
    metrics = train_step(state, batch)
    if metrics.skipped:
        raise SystemExit(f"training: got loss {metrics.loss}; expected a finite one")


def measure(options: argparse.Namespace) -> str:
    """The three tables as Markdown."""
    config = read_recipe(options)
    threads = options.threads if options.threads is not None else (1 if options.small else 2)
    torch.set_num_threads(threads)
    state = begun(config)
    with memory_feed(config) as feed:
        lines = [
            f"{recipe_name(options)}: batch {config.batch_size}, {threads} threads, "
            f"torch {torch.__version__}\n",
            *operations(state, feed, config, steps=options.steps),
            *alone(state, feed, config, steps=options.steps),
        ]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        settings = changes(state, config, options.data, folder=Path(folder), stack=stack)
        for _ in range(options.rounds):
            for setting in settings:
                seconds = setting.turn(config, options.steps)
                setting.rates.append(config.batch_size * options.steps / seconds)
    return "\n".join([*lines, *table(settings)])


def recipe_name(options: argparse.Namespace) -> str:
    """The recipe asked for, or the default."""
    return str(options.recipe or ("tiny" if options.small else "emoji-64"))


def read_recipe(options: argparse.Namespace) -> DiffusionTraining:
    """The first stage of the recipe; see `--recipe`."""
    config = load_recipe(recipe_name(options)).stages[0]
    # Nothing decoded is kept: what an image costs the first time is what is measured.
    config = replace(config, data=replace(config.data, cache_bytes=0, styles=None))
    return config if options.batch is None else replace(config, batch_size=options.batch)


@contextmanager
def memory_feed(config: DiffusionTraining, *, count: int = 4) -> Iterator[Feed]:
    """Batches and embedded captions that are there already."""
    made = torch.Generator().manual_seed(7)
    size, stage = config.batch_size, config.stage
    texts: dict[tuple[str, ...], TextEmbedding] = {}
    ready = []
    for number in range(count):
        shape = (size, stage.resolution, stage.resolution, 3)
        images = (torch.rand(shape, generator=made) * 2 - 1).permute(0, 3, 1, 2)
        captions = tuple(f"{number} {row}" for row in range(size))
        tokens = torch.randn(size, TOKENS, stage.network.text_dim, generator=made)
        mask = torch.ones(size, TOKENS, dtype=torch.bool)
        texts[captions] = TextEmbedding(tokens=tokens, mask=mask)
        ready.append(Batch(images, None, captions, captions, 0))

    def text(captions: Sequence[str]) -> TextEmbedding:
        return texts[tuple(captions)]

    yield ((batch, text) for batch in itertools.cycle(ready))


def operations(
    state: TrainState, feed: Feed, config: DiffusionTraining, *, steps: int
) -> list[str]:
    """The longest operations of a step, by their own time."""
    for _ in range(2):
        _step(state, next(feed))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            _step(state, next(feed))
    events = sorted(profiler.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    own = sum(event.self_cpu_time_total for event in events if event.key in KERNELS)
    rows = [
        f"| `{event.key.removeprefix('aten::')}` | {event.count / steps:.0f} "
        f"| {event.self_cpu_time_total / steps / 1e3:.1f} "
        f"| {event.self_cpu_time_total / total:.1%} |"
        for event in events[:20]
    ]
    return [
        "## Operations by their own time",
        "",
        "| operation | calls a step | ms a step | share |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Convolutions and matrix products, attention included: {own / total:.1%} of "
        f"{total / steps / 1e3:.0f} ms.",
        "",
    ]


def alone(state: TrainState, feed: Feed, config: DiffusionTraining, *, steps: int) -> list[str]:
    """A step against its convolutions and matrix products alone."""
    with kernels.recorded() as recording:
        _step(state, next(feed))
    seconds = []
    for _ in range(max(2, steps)):
        began = time.perf_counter()
        _step(state, next(feed))
        seconds.append(time.perf_counter() - began)
    kernel_seconds = recording.replay(2)
    step = statistics.median(seconds)
    flops = count_flops(lambda: _step(state, next(feed)))
    return [
        "## A step against its convolutions and matrix products alone",
        "",
        f"step {step:.3f} s, convolutions and products alone {kernel_seconds:.3f} s, "
        f"ratio {step / kernel_seconds:.2f}; {flops / config.batch_size / 1e9:.2f} GFLOP an image, "
        f"{flops / step / 1e9:.0f} GFLOP/s in the step, {flops / kernel_seconds / 1e9:.0f} alone.",
        "",
    ]


def changes(
    state: TrainState,
    config: DiffusionTraining,
    data: Path | None,
    *,
    folder: Path,
    stack: ExitStack,
) -> list[Setting]:
    """The trainer as it is, and with one thing changed each."""

    def ready() -> AbstractContextManager[Feed]:
        return memory_feed(config)

    loading = Loading(config, data, folder)
    return [
        Setting("the trainer as it is, examples in memory", state, ready),
        Setting("channels_last off: weights and input contiguous", contiguous(config), ready),
        Setting("AdamW a weight at a time (torch's default)", other_adamw(config), ready),
        Setting("AdamW foreach", other_adamw(config, foreach=True), ready),
        Setting("gradient norm a weight at a time", state, ready, single_clipping),
        Setting("bfloat16 (autocast)", state, ready, dtype=torch.bfloat16),
        Setting("examples loaded on the training thread", state, loading.here),
        Setting("images ahead, captions on the thread (the trainer)", state, loading.images),
        Setting("images and captions ahead", state, loading.both),
    ]


def contiguous(config: DiffusionTraining) -> TrainState:
    """Weights and input in contiguous order; what follows from them, too."""
    state = begun(config)
    stage: Any = state.model
    stage.to(memory_format=torch.contiguous_format)
    state.ema = EMA(stage, halflife_images=config.ema_halflife_images)  # of the moved weights
    bind = stage.network.bind

    def bind_contiguous(cond: Any) -> Callable[..., Any]:
        predict = bind(cond)
        return lambda z, level: predict(z.contiguous(), level)

    stage.network.bind = bind_contiguous
    return state


def other_adamw(config: DiffusionTraining, *, foreach: bool = False) -> TrainState:
    """The same optimizer in another form than fused."""
    state = begun(config)
    optimizer = config.optimizer
    state.optimizer = torch.optim.AdamW(
        [{**group, "fused": False, "foreach": foreach} for group in state.optimizer.param_groups],
        lr=optimizer.learning_rate,
        betas=optimizer.betas,
        eps=optimizer.eps,
        foreach=foreach,
    )
    return state


def single_clipping() -> AbstractContextManager[Any]:
    """Clip with a loop over the weights."""
    clip = torch.nn.utils.clip_grad_norm_

    def loop(parameters: Any, limit: float, foreach: bool | None = None) -> Any:
        return clip(parameters, limit, foreach=False)

    return mock.patch.object(torch.nn.utils, "clip_grad_norm_", loop)


class Loading:
    """Examples from files, in three ways of sharing the work among threads."""

    def __init__(self, config: DiffusionTraining, data: Path | None, folder: Path) -> None:
        self.config = config
        if data is None:
            data = folder / "images"
            make_images(data)
        resolution = config.stage.resolution
        self.source: ExampleSource = open_source(
            data, resolution=resolution, data=config.data, grammar=GRAMMAR
        )
        captions = all_captions(self.source, config.data.caption_variants)
        encoder = ByteTextEncoder(config.stage.network.text_dim, max_tokens=2 * TOKENS)
        store = embed_ahead(encoder, captions, folder=folder / "embeddings")
        self.lookup: TextLookup = store.__getitem__

    @contextmanager
    def here(self) -> Iterator[Feed]:
        """Everything on the thread that trains."""
        made = self._batches(prefetch=0)
        yield ((batch, self.lookup) for batch in made)
        made.close()

    @contextmanager
    def images(self) -> Iterator[Feed]:
        """As the trainer does: images ahead on another thread."""
        made = self._batches(prefetch=3)
        yield ((batch, self.lookup) for batch in made)
        made.close()

    @contextmanager
    def both(self) -> Iterator[Feed]:
        """Images and their captions ahead on another thread."""
        made = self._batches(prefetch=0)
        found = prefetched(((batch, self.lookup(batch.captions)) for batch in made), 3)
        yield ((batch, _known(text)) for batch, text in found)
        found.close()
        made.close()

    def _batches(self, *, prefetch: int) -> Any:
        return batches(
            self.source,
            BatchPlan(
                resolution=self.config.stage.resolution,
                lowres_resolution=None,
                config=self.config.data,
                batch_size=self.config.batch_size,
                seed=0,
            ),
            prefetch=prefetch,
        )


def _known(text: TextEmbedding) -> TextLookup:
    return lambda captions: text


def make_images(folder: Path) -> None:
    """Soft shapes on transparent ground with captions, about as large as emoji files."""
    folder.mkdir()
    row, column = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for number in range(IMAGES):
        angle = number / IMAGES * 6.28
        inside = (row - 0.5) ** 2 + (column - 0.5 - 0.2 * np.sin(angle)) ** 2 < 0.12
        planes = [127 + 127 * np.sin(angle * k + 6 * row + k * column) for k in range(1, 4)] + [
            255 * inside
        ]
        pixels = np.stack(planes, axis=2).astype(np.uint8)
        Image.fromarray(pixels, "RGBA").save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text(f"soft shape {number}")


def table(settings: Sequence[Setting]) -> list[str]:
    """One row a setting, Markdown."""
    first, rows = settings[0], []
    for setting in settings:
        ratios = [a / b for a, b in zip(setting.rates, first.rates, strict=True)]
        rows.append(
            f"| {setting.name} | {statistics.median(setting.rates):.2f} "
            f"({min(setting.rates):.2f}–{max(setting.rates):.2f}) "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}) |"
        )
    return [
        "## What was tried",
        "",
        "| change | images/s (range) | ratio to the first row (range) |",
        "|---|---|---|",
        *rows,
    ]
