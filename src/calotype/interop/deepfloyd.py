"""DeepFloyd IF: folders of diffusers' IF pipelines as stages of this library.

Stage I samples 64 pixels, II enlarges to 256, III to 1024. The up-scaler by Stability that is often
put in the place of III works in the space of an autoencoder and is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calotype.cascade.stage import Stage
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import ConfigError, UsageError
from calotype.interop.schedulers import read_scheduler
from calotype.interop.stages import loaded, read_unet
from calotype.interop.unet import rules

PIPELINES = (
    "IFPipeline",
    "IFImg2ImgPipeline",
    "IFInpaintingPipeline",
    "IFSuperResolutionPipeline",
    "IFImg2ImgSuperResolutionPipeline",
    "IFInpaintingSuperResolutionPipeline",
)
ENLARGEMENT = 4
# Defaults of the pipelines.
_BASE_STEPS, _BASE_WEIGHT = 100, 7.0
_LARGER_STEPS, _LARGER_WEIGHT, _AUG_LEVEL = 50, 4.0, 0.25


def load_stage(folder: Path) -> Stage:
    """One stage of DeepFloyd IF; II and III need the folder's `image_noising_scheduler`, too.

    Raises:
        CalotypeError: files are missing or damaged, or hold something else.
    """
    resolution, network = read_unet(folder / "unet")
    scheduler = read_scheduler(folder / "scheduler")
    if network.learned_variance != scheduler.learned_variance:
        raise ConfigError(
            f"{folder / 'scheduler'}: got a variance_type that does not fit the network; expected "
            "'learned_range' with 6 output channels and a fixed one with 3"
        )
    lowres = network.lowres
    config = StageConfig(
        resolution=resolution,
        network=network,
        lowres_resolution=resolution // ENLARGEMENT if lowres else None,
        schedule=scheduler.schedule,
        parametrization=scheduler.parametrization,
        sampling=SamplingConfig(
            steps=_LARGER_STEPS if lowres else _BASE_STEPS,
            guidance_weight=_LARGER_WEIGHT if lowres else _BASE_WEIGHT,
            aug_level=_AUG_LEVEL if lowres else 0.0,
            threshold_percentile=scheduler.threshold_percentile,
            threshold_ceiling=scheduler.threshold_ceiling,
            static_clip=scheduler.static_clip,
            ddpm_interpolation=scheduler.interpolation,
        ),
    )
    if lowres:
        table = read_scheduler(folder / "image_noising_scheduler").schedule
        noised = LowresConfig(filter="bilinear_corners", schedule=table)
        config = replace(config, lowres=noised)
    return loaded(lambda: Stage(config), (folder / "unet", rules(network)))


def find_text_encoder(folders: list[Path]) -> str:
    """How the encoder beside the first stage that has one is called in a cascade: all share it.

    Its files stay where they are.

    Raises:
        UsageError: there is none.
    """
    for folder in folders:
        if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
            return f"t5_padded:{folder.resolve()}"
    raise UsageError(
        f"{folders[0]} has no text_encoder and tokenizer; give a folder of DeepFloyd IF that has "
        "them, or build stages with calotype.interop.deepfloyd.load_stage"
    )
