"""Teaches the text canvas alone, before diffusion begins: caption in, mean picture out.

Where noise hides everything, the best estimate is the mean picture of a caption. The canvas is
what brings the caption's layout into the network, and learns it slowly through the whole U-Net:
a step of the canvas alone is some hundred times cheaper. So it is first taught to paint that mean
picture, read out by one 1x1 convolution a level, which is thrown away; the U-Net then starts with
maps that already say what goes where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding
from calotype.config import CanvasConfig, TrainConfig
from calotype.data.batches import batches
from calotype.data.source import ExampleSource
from calotype.networks import UNet
from calotype.networks.text import TextConditioner
from calotype.training.text import TextLookup

_WARMUP_STEPS = 50
_DECAY_FROM = 0.5


class CanvasReader(nn.Module):
    """Reads a picture out of canvas maps: one 1x1 convolution a level, and their sum.

    Args:
        shapes: (channels, side) of each level's maps, or None where a level has none.
        resolution: side of the picture, in pixels.
    """

    def __init__(self, shapes: Sequence[tuple[int, int] | None], resolution: int) -> None:
        super().__init__()
        self.folds = tuple(None if shape is None else resolution // shape[1] for shape in shapes)
        self.layers = nn.ModuleList(
            nn.Identity() if shape is None or fold is None else nn.Conv2d(shape[0], 3 * fold**2, 1)
            for shape, fold in zip(shapes, self.folds, strict=True)
        )

    def forward(self, maps: Sequence[Tensor | None]) -> Tensor:
        """Maps (B, c, side, side), one a level -> pictures (B, 3, H, W)."""
        drawn = [
            F.pixel_shuffle(layer(level), fold)
            for level, layer, fold in zip(maps, self.layers, self.folds, strict=True)
            if level is not None and fold is not None
        ]
        return torch.stack(drawn).sum(0)


def text_conditioner(stage: Stage) -> TextConditioner | None:
    """The part of a stage's network that has a text canvas, if there is one."""
    if not isinstance(stage.network, UNet):
        return None
    text = stage.network.condition.text
    return None if text is None or text.canvas is None else text


def freeze_canvas(stage: Stage, config: CanvasConfig | None) -> None:
    """Leave the canvas as `teach_canvas` made it, if the recipe says so."""
    if config is not None and config.rate_share == 0:
        for weight in canvas_weights(stage):
            weight.requires_grad_(False)


def canvas_weights(stage: Stage) -> list[nn.Parameter]:
    """Weights of a stage's text canvas; none where it has no canvas."""
    text = text_conditioner(stage)
    return [] if text is None or text.canvas is None else list(text.canvas.parameters())


def teach_canvas(
    stage: Stage,
    source: ExampleSource,
    lookup: TextLookup,
    *,
    config: TrainConfig,
    progress: Callable[[int, int], None],
) -> float:
    """Teach the canvas of a new stage; a function of the seed and the data alone.

    Args:
        stage: with text statistics already set.
        source: of examples.
        lookup: captions -> embeddings.
        config: of the stage; `config.canvas` says how long.
        progress: gets (pictures seen, pictures in all).

    Returns:
        Mean squared error of the pictures over the last tenth, in [-1, 1]^2; nan where there is
        nothing to teach.
    """
    text, canvas = text_conditioner(stage), config.canvas
    if canvas is None or text is None or text.canvas is None:
        return math.nan
    device = stage.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        reader = CanvasReader(text.canvas.shapes, config.stage.resolution).to(device)
    optimizer = torch.optim.AdamW(
        [*_weights(text.canvas), *reader.parameters()],
        lr=canvas.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=canvas.weight_decay,
        fused=True,
    )
    pool = _Pooled(text, lookup)
    steps = max(1, canvas.images // canvas.batch_size)
    errors = torch.zeros(steps, dtype=torch.float64)
    stream = batches(
        source,
        resolution=config.stage.resolution,
        lowres_resolution=None,
        config=config.data,
        batch_size=canvas.batch_size,
        seed=config.seed,
    )
    with closing(stream):
        for step in range(steps):
            batch = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = canvas.learning_rate * _rate(step, steps)
            drawn = reader(text.canvas(pool(batch.captions).to(device)))
            loss = F.mse_loss(drawn, batch.x.to(device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            errors[step] = loss.detach().double()
            progress((step + 1) * canvas.batch_size, steps * canvas.batch_size)
    return float(errors[-max(1, steps // 10) :].mean())


class _Pooled:
    """Pooled text of captions, each computed once: a few kilobytes a caption."""

    def __init__(self, text: TextConditioner, lookup: TextLookup) -> None:
        self._text = text
        self._lookup = lookup
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(B, D)."""
        absent = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        if absent:
            embedded = self._lookup(absent)
            device = next(self._text.parameters()).device
            rows = self._text.pooling(TextEmbedding(embedded.tokens, embedded.mask).to(device))
            self._known.update(zip(absent, rows, strict=True))
        return torch.stack([self._known[caption] for caption in captions])


def _weights(canvas: nn.Module) -> list[nn.Parameter]:
    weights = list(canvas.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate: warm-up, constant, and half a cosine over the second half."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    progress = max(0.0, (step / steps - _DECAY_FROM) / (1 - _DECAY_FROM))
    return warmup * 0.5 * (1 + math.cos(math.pi * progress))
