"""One trainer in one process, told over its standard input when to step.

    python training_peers.py diffusers|imagen-pytorch TASK

`training.py` starts it with the peers' own Python: this file needs torch and the peer, and nothing
of this library. TASK is a `Task` as JSON. Commands, one a line: `run N` takes N optimizer steps,
`memory`, `count`, `quit`; each answer is one line of JSON. Between commands it waits for input and
uses no processor.

What all trainers do: noise images by the cosine schedule, predict the noise, mean squared error,
gradients clipped to norm 1, an optimizer of the Adam family, averaged weights; text of `tokens`
made-up token states, dropped in a tenth of the images where the trainer has that as an option.
Images and text lie in memory ahead.

- diffusers: `UNet2DConditionModel` in the shape of DeepFloyd IF (residual blocks resample; text
  keys and values joined to self-attention), trained as its example scripts do: AdamW, `EMAModel`
  after every step. Its attention is scaled-dot-product attention by default
  (`AttnAddedKVProcessor2_0`), so its fast form differs by channels_last alone.
- imagen-pytorch: its `Unet` in `Imagen` in `ImagenTrainer`: Adam, and ema-pytorch, which takes in
  the weights after every tenth step. Min-SNR weighting is off, so that the loss is the same. Its
  text projections, global context and feed-forward layers stay as its user gets them. In the fast
  form its three attention classes are replaced, in this process, by the same computation through
  `scaled_dot_product_attention`; how far both differ is answered with `ready`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
TEXT_DROPOUT = 0.1


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        channels: of each level, finest first; each is half as fine as the one before.
        attention: which levels attend to themselves and to the text.
        blocks: residual blocks a level, as each package counts them.
        resolution: side of the images.
        batch: images a step.
        head_dim: channels of an attention head.
        tokens: of each caption.
        text_dim: width of their states.
        dtype: float32, or bfloat16 by autocast.
        threads: of one operation.
        fast: channels_last and scaled-dot-product attention.
    """

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks: int
    resolution: int
    batch: int
    head_dim: int
    tokens: int
    text_dim: int
    dtype: str
    threads: int
    fast: bool = False

    def to_json(self) -> str:
        """For a worker's command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Task:
        """What `to_json` gave."""
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("channels", "attention")}
        return Task(**{**values, **lists})


@dataclass(frozen=True)
class Trainer:
    """What a worker steps.

    Args:
        step: one optimizer step; returns the loss.
        parameters: how many numbers are trained.
        version: of the package.
        notes: shown under the table.
    """

    step: Callable[[], float]
    parameters: int
    version: str
    notes: list[str] = field(default_factory=list)


class Examples:
    """Some batches of made-up images (B, 3, H, W) in [-1, 1] and token states (B, L, D)."""

    def __init__(self, task: Task, *, count: int = 4) -> None:
        made = torch.Generator().manual_seed(7)
        shape = (task.batch, 3, task.resolution, task.resolution)
        words = (task.batch, task.tokens, task.text_dim)
        layout = torch.channels_last if task.fast else torch.contiguous_format
        self.batches = [
            (
                (torch.rand(shape, generator=made) * 2 - 1).contiguous(memory_format=layout),
                torch.randn(words, generator=made),
            )
            for _ in range(count)
        ]
        self._taken = 0

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The next batch, round and round."""
        self._taken += 1
        return self.batches[self._taken % len(self.batches)]


def build_diffusers(task: Task) -> Trainer:
    import diffusers
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from diffusers.training_utils import EMAModel

    down = [
        "SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in task.attention
    ]
    up = ["SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in task.attention]
    unet = UNet2DConditionModel(
        sample_size=task.resolution,
        in_channels=3,
        out_channels=3,
        down_block_types=tuple(down),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=tuple(reversed(up)),
        block_out_channels=task.channels,
        layers_per_block=task.blocks,
        attention_head_dim=task.head_dim,
        norm_num_groups=min(32, *task.channels),
        resnet_time_scale_shift="scale_shift",
        cross_attention_dim=task.text_dim,
        encoder_hid_dim=task.text_dim,
        addition_embed_type="text",
        addition_embed_type_num_heads=max(1, task.text_dim // task.head_dim),
    ).train()
    if task.fast:
        unet.to(memory_format=torch.channels_last)
    averages = EMAModel(unet.parameters(), decay=0.9999)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    examples, cast = Examples(task), autocast(task)

    def step() -> float:
        images, text = examples()
        kept = torch.rand(len(text), 1, 1) >= TEXT_DROPOUT
        noise = torch.randn_like(images)
        times = torch.randint(0, 1000, (len(images),))
        noisy = scheduler.add_noise(images, noise, times)
        with cast():
            predicted = unet(noisy, times, encoder_hidden_states=text * kept).sample
        loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        averages.step(unet.parameters())
        return loss.item()

    return Trainer(step, trained(unet), diffusers.__version__)


def build_imagen(task: Task) -> Trainer:
    package = import_imagen()
    module = sys.modules["imagen_pytorch.imagen_pytorch"]
    notes = []
    if task.fast:
        apart = replace_attention(module)
        notes.append(f"attention replaced; largest difference to its own: {apart:.1e}")
    base = task.channels[0]
    unet = package.Unet(
        dim=base,
        dim_mults=tuple(width // base for width in task.channels),
        num_resnet_blocks=task.blocks,
        layer_attns=task.attention,
        layer_cross_attns=task.attention,
        attn_dim_head=task.head_dim,
        attn_heads=max(2, max(task.channels) // task.head_dim),
        text_embed_dim=task.text_dim,
        max_text_len=task.tokens,
        memory_efficient=False,
    )
    imagen = package.Imagen(
        unets=unet,
        image_sizes=task.resolution,
        text_embed_dim=task.text_dim,
        pred_objectives="noise",
        noise_schedules="cosine",
        loss_type="l2",
        min_snr_loss_weight=False,
        cond_drop_prob=TEXT_DROPOUT,
    )
    if task.fast:
        imagen.unets.to(memory_format=torch.channels_last)
    trainer = package.ImagenTrainer(
        imagen,
        lr=LEARNING_RATE,
        max_grad_norm=CLIP_NORM,
        precision="bf16" if task.dtype == "bfloat16" else None,
        accelerate_cpu=True,
        verbose=False,
    )
    trainer.train()
    examples = Examples(task)
    masks = torch.ones(task.batch, task.tokens, dtype=torch.bool)

    def step() -> float:
        images, text = examples()
        images = (images + 1) / 2  # it scales images of [0, 1] itself
        loss = trainer(images, text_embeds=text, text_masks=masks, unet_number=1)
        trainer.update(unet_number=1)
        return float(loss)

    return Trainer(step, trained(imagen.unets[0]), package.__version__, notes)


def autocast(task: Task) -> Callable[[], Any]:
    if task.dtype == "float32":
        return nullcontext
    return lambda: torch.autocast("cpu", dtype=getattr(torch, task.dtype))


def trained(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def replace_attention(module: Any) -> float:
    """Compute imagen-pytorch's attention by one call each; returns the largest difference."""
    x, words, latents = torch.randn(2, 16, 24), torch.randn(2, 5, 12), torch.randn(2, 4, 24)
    pooling: dict[str, Any] = {"dim": 24, "dim_head": 8, "heads": 3}
    told = {**pooling, "context_dim": 12}
    kinds: list[tuple[Any, Any, dict[str, Any], tuple[Tensor, ...]]] = [
        (module.Attention, _joined_attention, told, (x, words)),
        (module.CrossAttention, _cross_attention, told, (x, words)),
        (module.PerceiverAttention, _pooling_attention, pooling, (x, latents)),
    ]
    apart = 0.0
    for kind, replacement, settings, inputs in kinds:
        layer = kind(**settings)
        with torch.no_grad():
            wanted = layer(*inputs)
            kind.forward = replacement
            apart = max(apart, float((layer(*inputs) - wanted).abs().max() / wanted.abs().max()))
    if apart > 1e-4:
        raise SystemExit(f"the replaced attention differs by {apart:.1e}; expected below 1e-4")
    return apart


def _joined_attention(
    self: Any, x: Tensor, context: Tensor | None = None, mask: None = None, attn_bias: None = None
) -> Any:
    """`Attention`: all heads share the keys and values of pixels, text and a null token."""
    assert mask is None and attn_bias is None
    x = self.norm(x)
    keys, values = self.to_kv(x).chunk(2, dim=-1)
    null = self.null_kv.expand(len(x), -1, -1)
    keys, values = [null[:, :1], keys], [null[:, 1:], values]
    if context is not None:
        more_keys, more_values = self.to_context(context).chunk(2, dim=-1)
        keys.insert(0, more_keys)
        values.insert(0, more_values)
    shared = (len(x), self.heads, -1, -1)
    keys, values = torch.cat(keys, 1)[:, None], torch.cat(values, 1)[:, None].expand(shared)
    keys = (F.normalize(keys, dim=-1) * self.k_scale).expand(shared)
    queries = F.normalize(_split(self.to_q(x), self.heads), dim=-1) * self.q_scale
    return self.to_out(_attended(queries, keys, values, self.scale))


def _cross_attention(self: Any, x: Tensor, context: Tensor, mask: None = None) -> Any:
    """`CrossAttention`: of pixels to text and a null token."""
    assert mask is None
    x, context = self.norm(x), self.norm_context(context)
    keys, values = (_split(part, self.heads) for part in self.to_kv(context).chunk(2, dim=-1))
    null = self.null_kv[:, None, None, None].expand(-1, len(x), self.heads, -1, -1)
    keys, values = torch.cat((null[0], keys), 2), torch.cat((null[1], values), 2)
    queries = F.normalize(_split(self.to_q(x), self.heads), dim=-1) * self.q_scale
    keys = F.normalize(keys, dim=-1) * self.k_scale
    return self.to_out(_attended(queries, keys, values, self.scale))


def _pooling_attention(self: Any, x: Tensor, latents: Tensor, mask: Tensor | None = None) -> Any:
    """`PerceiverAttention`: of latents to the text and themselves."""
    x, latents = self.norm(x), self.norm_latents(latents)
    states = self.to_kv(torch.cat((x, latents), 1))
    keys, values = (_split(part, self.heads) for part in states.chunk(2, dim=-1))
    if mask is not None:
        mask = F.pad(mask, (0, latents.shape[1]), value=True)[:, None, None]
    queries = F.normalize(_split(self.to_q(latents), self.heads), dim=-1) * self.q_scale
    keys = F.normalize(keys, dim=-1) * self.k_scale
    return self.to_out(_attended(queries, keys, values, self.scale, mask))


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _attended(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None
) -> Tensor:
    queries, keys = queries.to(values.dtype), keys.to(values.dtype)
    found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    return found.transpose(1, 2).flatten(2)


def import_imagen() -> Any:
    """The package, without what training on tensors does not need, and without the network.

    It asks the hub for a T5 model's width when it is imported; text comes as states here, so its
    module of text encoders is left out. Packages for images are left out where missing.
    """
    encoders: Any = types.ModuleType("imagen_pytorch.t5")
    encoders.DEFAULT_T5_NAME = "none"
    encoders.get_encoded_dim = lambda name: 768
    encoders.t5_encode_text = lambda texts, name: None  # never called: states are given
    sys.modules["imagen_pytorch.t5"] = encoders
    sys.meta_path.append(_LeftOut())  # last: only asked for what is not installed
    import imagen_pytorch

    return imagen_pytorch


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        return _Nothing

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else type.__call__(cls)


class _Nothing(metaclass=_Anything):
    def __getattr__(self, name: str) -> Any:
        return _Nothing


class _EmptyModule(types.ModuleType):
    __path__: Any = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _LeftOut(MetaPathFinder, Loader):
    NAMES = ("torchvision", "kornia", "datasets", "pytorch_warmup", "PIL")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        left_out = name.split(".")[0] in self.NAMES
        return ModuleSpec(name, self, is_package=True) if left_out else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def count_flops(step: Callable[[], object]) -> int:
    """Floating-point operations of a step, forward and backward."""
    aten = torch.ops.aten

    def backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
        return int(sdpa_backward_flop_count(grad, query, key, value))

    def forward(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    # The counter does not know the CPU's attention by itself.
    more = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    counter = FlopCounterMode(display=False, custom_mapping=more)
    with counter:
        step()
    return int(counter.get_total_flops())


def peak_bytes() -> int:
    """The most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory before exec, too
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(build: Callable[[Task], Trainer], task: Task) -> None:
    """Build the trainer and obey commands until `quit` or the end of input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr  # what packages print is no answer
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    trainer = build(task)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    answer(
        parameters=trainer.parameters,
        version=trainer.version,
        torch=torch.__version__,
        notes=trainer.notes,
        peak_bytes=peak_bytes(),
    )
    for line in sys.stdin:
        command, *words = line.split()
        if command == "quit":
            return
        if command == "run":
            began = time.perf_counter()
            losses = [trainer.step() for _ in range(int(words[0]))]
            answer(seconds=time.perf_counter() - began, losses=losses)
        elif command == "memory":
            answer(peak_bytes=peak_bytes())
        elif command == "count":
            answer(flops=count_flops(trainer.step))
        else:
            raise SystemExit(f"got the command {command!r}; expected run, memory, count or quit")


BUILDERS = {"diffusers": build_diffusers, "imagen-pytorch": build_imagen}
MODULES = {"diffusers": "diffusers", "imagen-pytorch": "imagen_pytorch"}


if __name__ == "__main__":
    serve(BUILDERS[sys.argv[1]], Task.from_json(sys.argv[2]))
