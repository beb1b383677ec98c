"""Records what the real imagen-pytorch 2.1.0 computes, as oracle data for the tests.

Run it in an environment that holds that package and torch, and nothing of this library:

    pip install --no-deps imagen-pytorch==2.1.0
    pip install torch numpy einops beartype ema-pytorch pydantic tqdm packaging safetensors
    python tests/interop/peer_imagen_pytorch.py OUT_FOLDER

It writes imagen_pytorch_peer.json (settings, names and shapes of weights) and
imagen_pytorch_peer.safetensors (inputs that are not made by a formula, and outputs). Weights and
images are made from their names by `made`, so that they need no room. torchvision and other
heavy packages are replaced by stubs; no network is used.
"""

from __future__ import annotations

import json
import sys
import types
import zlib
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path

import torch

STUBS = ("torchvision", "kornia", "transformers", "datasets", "accelerate", "pytorch_warmup", "PIL")
WIDTHS = {"google/t5-v1_1-base": 768}

TINY = {
    "dim": 16,
    "cond_dim": 16,
    "text_embed_dim": 12,
    "dim_mults": (1, 2),
    "attn_dim_head": 8,
    "attn_heads": 2,
    "max_text_len": 6,
    "attn_pool_num_latents": 3,
}
CASES: dict[str, dict] = {
    "base": {**TINY, "num_resnet_blocks": (1, 2), "layer_attns": (False, True)},
    "deep_attention": {**TINY, "layer_attns_depth": 2, "layer_mid_attns_depth": 2, "ff_mult": 3.0},
    "memory_efficient": {
        **TINY,
        "lowres_cond": True,
        "memory_efficient": True,
        "num_resnet_blocks": (1, 2),
        "layer_attns": False,
        "layer_cross_attns": (False, True),
    },
    "linear": {
        **TINY,
        "layer_attns": False,
        "use_linear_attn": True,
        "use_linear_cross_attn": True,
    },
    "plain": {
        **TINY,
        "init_cross_embed": False,
        "pixel_shuffle_upsample": False,
        "combine_upsample_fmaps": True,
        "init_conv_to_final_conv_residual": True,
        "scale_skip_connection": False,
        "final_resnet_block": False,
        "use_global_context_attn": False,
        "attn_pool_text": False,
        "attend_at_middle": False,
        "final_conv_kernel_size": 1,
        "num_time_tokens": 3,
        "learned_sinu_pos_emb_dim": 8,
    },
    "told_much": {
        **TINY,
        "lowres_cond": True,
        "self_cond": True,
        "cond_images_channels": 2,
        "channels": 2,
        "channels_out": 4,
    },
    "untold": {
        "dim": 16,
        "dim_mults": (1, 2, 4),
        "attn_dim_head": 8,
        "attn_heads": 2,
        "layer_attns": (False, True, True),
        "layer_cross_attns": False,
        "use_linear_attn": True,
        "cond_on_text": False,
        "text_embed_dim": None,
        "max_text_len": 6,
    },
}
PRESETS = {
    "BaseUnet64": {**TINY, "dim_mults": (1, 2, 3, 4)},
    "SRUnet256": {
        **TINY,
        "lowres_cond": True,
        "dim_mults": (1, 2, 4),
        "num_resnet_blocks": (1, 1, 2),
        "layer_attns": (False, False, True),
        "layer_cross_attns": (False, False, True),
    },
    "SRUnet1024": {
        **TINY,
        "lowres_cond": True,
        "dim_mults": (1, 2),
        "num_resnet_blocks": 1,
        "layer_cross_attns": (False, True),
    },
}


def made(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Normal numbers that depend on the name alone: weights of about unit gain, or images."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values = torch.randn(shape, generator=generator)
    last = name.rsplit(".", 1)[-1]
    if name.startswith("input."):
        return values
    if last in ("gamma", "g", "q_scale", "k_scale") or (last == "weight" and len(shape) == 1):
        return 1 + 0.2 * values
    if last == "weight" and len(shape) > 1:
        fan_in = values[0].numel()
        return values / fan_in**0.5
    return 0.3 * values


def inputs_of(settings: dict, *, size: int = 16) -> dict[str, torch.Tensor]:
    """What a network with these settings is told; two images, three tokens and five."""
    channels = settings.get("channels", 3)
    told = {
        "x": made("input.x", (2, channels, size, size)),
        "time": torch.tensor([-3.5, 2.25]),
    }
    if settings.get("text_embed_dim") is not None:
        told["text_embeds"] = made("input.text", (2, 5, settings["text_embed_dim"]))
        told["text_mask"] = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    if settings.get("lowres_cond"):
        told["lowres_cond_img"] = made("input.lowres", (2, channels, size, size))
        told["lowres_noise_times"] = torch.tensor([1.5, 4.0])
    if settings.get("self_cond"):
        told["self_cond"] = made("input.self", (2, channels, size, size))
    if settings.get("cond_images_channels"):
        told["cond_images"] = made("input.cond", (2, settings["cond_images_channels"], 8, 8))
    return told


class _Anything(type):
    def __getattr__(cls, name: str):
        return _Stub

    def __call__(cls, *args, **kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) else type.__call__(cls)


class _Stub(metaclass=_Anything):
    d_model = 768

    def __getattr__(self, name: str):
        return _Stub

    @classmethod
    def from_pretrained(cls, name: str, **kwargs):
        config = type.__call__(_Stub)
        config.d_model = WIDTHS[name]
        return config


class _StubModule(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub


class _StubFinder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in STUBS else None

    def create_module(self, spec):
        return _StubModule(spec.name)

    def exec_module(self, module) -> None:
        pass


def fill(module: torch.nn.Module) -> None:
    """Give every weight its made value, by its name in that package."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(made(name, tuple(value.shape)))


@torch.no_grad()
def record_networks(package, tensors: dict, tables: dict) -> None:
    kinds = {name: (package.Unet, settings) for name, settings in CASES.items()}
    kinds |= {name: (getattr(package, name), settings) for name, settings in PRESETS.items()}
    for name, (kind, settings) in kinds.items():
        unet = kind(**settings).eval()
        fill(unet)
        told = inputs_of(settings)
        tensors[f"{name}.output"] = unet(**told)
        tables[name] = {
            "kind": kind.__name__,
            "settings": settings,
            "weights": {key: list(value.shape) for key, value in unet.state_dict().items()},
        }
        if name != "base":
            continue
        tensors["base.null"] = unet(**told, cond_drop_prob=1.0)
        for project in (True, False):
            tensors[f"base.guided_{project}"] = unet.forward_with_cond_scale(
                **told, cond_scale=3.0, remove_parallel_component=project, keep_parallel_frac=0.25
            )


@torch.no_grad()
def record_losses(package, tensors: dict) -> None:
    settings = CASES["base"]
    told = inputs_of(settings)
    times = torch.tensor([0.3, 0.8])
    image = made("input.image", (2, 3, 16, 16)).sigmoid()
    for objective in ("noise", "x_start", "v"):
        for loss_type in ("l2", "l1", "huber"):
            for min_snr in (True, False):
                imagen = package.Imagen(
                    package.Unet(**settings), image_sizes=16, text_embed_dim=12,
                    pred_objectives=objective, loss_type=loss_type, cond_drop_prob=0.0,
                    min_snr_loss_weight=min_snr,
                ).eval()  # fmt: skip
                fill(imagen.unets[0])
                tensors[f"loss.{objective}.{loss_type}.{min_snr}"] = imagen.p_losses(
                    imagen.unets[0], image, times, noise=told["x"],
                    noise_scheduler=imagen.noise_schedulers[0], pred_objective=objective,
                    text_embeds=told["text_embeds"], text_mask=told["text_mask"],
                    min_snr_gamma=imagen.min_snr_gamma[0],
                )  # fmt: skip
    scheduler = imagen.noise_schedulers[0]
    tensors["loss.logsnr"] = scheduler.log_snr(times)
    grid = torch.linspace(0, 0.99, 12)
    tensors["schedule.cosine"] = scheduler.log_snr(grid)
    tensors["schedule.linear"] = imagen.lowres_noise_schedule.log_snr(grid)


@torch.no_grad()
def record_elucidated(package, tensors: dict) -> None:
    settings = CASES["base"]
    told = inputs_of(settings)
    imagen = package.ElucidatedImagen(
        package.Unet(**settings), image_sizes=16, text_embed_dim=12, cond_drop_prob=0.0
    ).eval()
    unet = imagen.unets[0]
    fill(unet)
    sigma = torch.tensor([0.4, 6.0])
    words = {"text_embeds": told["text_embeds"], "text_mask": told["text_mask"]}
    tensors["edm.denoised"] = imagen.preconditioned_network_forward(
        unet.forward, told["x"] * 2, sigma, sigma_data=0.5, **words
    )
    image = made("input.image", (2, 3, 16, 16)).sigmoid()
    imagen.noise_distribution = lambda *args: sigma
    real, torch.randn_like = torch.randn_like, lambda x: made("input.x", tuple(x.shape))
    try:
        tensors["edm.loss"] = imagen(
            image, text_embeds=words["text_embeds"], text_masks=words["text_mask"]
        )
    finally:
        torch.randn_like = real
    tensors["edm.sigmas"] = imagen.sample_schedule(8, 7, 0.002, 80)


def main(folder: Path) -> None:
    sys.meta_path.insert(0, _StubFinder())
    import imagen_pytorch as package
    from safetensors.torch import save_file

    assert package.__version__ == "2.1.0", package.__version__
    tensors: dict[str, torch.Tensor] = {}
    tables: dict[str, dict] = {}
    record_networks(package, tensors, tables)
    record_losses(package, tensors)
    record_elucidated(package, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, folder / "imagen_pytorch_peer.safetensors")
    text = json.dumps({"version": package.__version__, "cases": tables}, separators=(",", ":"))
    (folder / "imagen_pytorch_peer.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
