"""DeepFloyd IF: folders of diffusers' IF pipelines as stages of this library.

Stage I draws 64 pixels, II enlarges to 256, III to 1024. The up-scaler by Stability that is often
put in the place of III works in the space of an autoencoder and is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calotype.cascade.stage import Stage
from calotype.config.adm import AdmConfig
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop.safety import read_json
from calotype.interop.schedulers import SchedulerSettings, read_scheduler
from calotype.interop.stages import side, stage_of, unet_state
from calotype.interop.unet import read_unet_config

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
    """One stage of DeepFloyd IF.

    Args:
        folder: of an IF pipeline, with `unet` and `scheduler`, and for II and III
            `image_noising_scheduler`.

    Raises:
        CalotypeError: files are missing or damaged, or hold something else.
    """
    config = read_stage_config(folder)
    network = config.network
    assert isinstance(network, AdmConfig)
    return stage_of(config, lambda expected: unet_state(network, folder / "unet", expected))


def read_stage_config(folder: Path) -> StageConfig:
    """The settings of a stage; nothing of its weights is read."""
    where = str(folder / "unet" / "config.json")
    data = read_json(folder / "unet" / "config.json")
    network = read_unet_config(data, where)
    scheduler_path = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_scheduler(read_json(scheduler_path), str(scheduler_path))
    if network.learned_variance != scheduler.learned_variance:
        raise ConfigError(
            f"{scheduler_path}: got a variance_type that does not fit the network; expected "
            "'learned_range' with 6 output channels and a fixed one with 3"
        )
    resolution = side(data, where)
    common = StageConfig(
        resolution=resolution,
        network=network,
        lowres_resolution=resolution // ENLARGEMENT if network.lowres else None,
        schedule=scheduler.schedule,
        parametrization=scheduler.parametrization,
        sampling=_sampling(scheduler, lowres=network.lowres),
    )
    if not network.lowres:
        return common
    noising = folder / "image_noising_scheduler" / "scheduler_config.json"
    table = read_scheduler(read_json(noising), str(noising)).schedule
    return replace(common, lowres=LowresConfig(filter="bilinear_corners", schedule=table))


def _sampling(scheduler: SchedulerSettings, *, lowres: bool) -> SamplingConfig:
    return SamplingConfig(
        steps=_LARGER_STEPS if lowres else _BASE_STEPS,
        guidance_weight=_LARGER_WEIGHT if lowres else _BASE_WEIGHT,
        aug_level=_AUG_LEVEL if lowres else 0.0,
        threshold_percentile=scheduler.threshold_percentile,
        threshold_ceiling=scheduler.threshold_ceiling,
        ddpm_interpolation=scheduler.interpolation,
    )


def text_encoder_spec(folder: Path) -> str:
    """How the encoder beside a stage is called in a cascade; its files stay where they are.

    Raises:
        UsageError: there is none.
    """
    for name in ("text_encoder", "tokenizer"):
        if not (folder / name).is_dir():
            raise UsageError(
                f"{folder} has no {name}; give a folder of DeepFloyd IF that has one, or build "
                "stages with calotype.interop.deepfloyd.load_stage"
            )
    return f"t5_padded:{folder.resolve()}"


def find_text_encoder(folders: list[Path]) -> str:
    """The encoder of the first folder that has one: all stages share it."""
    error: CalotypeError | None = None
    for folder in folders:
        try:
            return text_encoder_spec(folder)
        except UsageError as missing:
            error = error or missing
    assert error is not None
    raise error
