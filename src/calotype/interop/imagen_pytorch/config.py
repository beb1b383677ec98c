"""Arguments of `Imagen`, `ElucidatedImagen` and of their `sample`, checked.

Names, defaults and meanings are those of imagen-pytorch 2.1.0. Video is not offered here.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from calotype.config.ranges import Fraction, Range, Settings, require
from calotype.diffusion import (
    NoiseSchedule,
    NoiseSource,
    VPrediction,
    ancestral_step,
    heun_step,
    karras_levels,
    min_snr_weighting,
    normal_logsnr,
    sampling_levels,
    simple_weighting,
    stratified_times,
)
from calotype.errors import ConfigError
from calotype.interop.imagen_pytorch.formulation import (
    OBJECTIVES,
    PENALTIES,
    SCHEDULES,
    Churn,
    Formulation,
)
from calotype.interop.imagen_pytorch.options import each, one_of, per_item, refuse_unless
from calotype.interop.imagen_pytorch.text import DEFAULT_T5_NAME

NO_VIDEO = "video is not offered here"
_VIDEO = ("video_frames", "cond_video_frames", "post_cond_video_frames", "inpaint_videos")
Numbers = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CascadeSettings(Settings, ABC):
    """What both cascades take."""

    image_sizes: int | tuple[int, ...]
    text_encoder_name: str = DEFAULT_T5_NAME
    text_embed_dim: int | None = None
    channels: Annotated[int, Range(1, 1024)] = 3
    cond_drop_prob: Fraction = 0.1
    random_crop_sizes: int | tuple[int | None, ...] | None = None
    lowres_noise_schedule: str = "linear"
    lowres_sample_noise_level: Fraction = 0.2
    per_sample_random_aug_noise_level: bool = False
    condition_on_text: bool = True
    auto_normalize_img: bool = True
    dynamic_thresholding: bool | tuple[bool, ...] = True
    dynamic_thresholding_percentile: Annotated[float, Range(1e-3, 1)] = 0.95
    only_train_unet_number: int | None = None
    temporal_downsample_factor: int = 1
    resize_cond_video_frames: bool = True
    resize_mode: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("lowres_noise_schedule", self.lowres_noise_schedule, SCHEDULES)
        refuse_unless("resize_cond_video_frames", self.resize_cond_video_frames, True, NO_VIDEO)
        factors = self.temporal_downsample_factor
        if isinstance(factors, tuple):
            factors = 1 if set(factors) <= {1} else max(factors)
        refuse_unless("temporal_downsample_factor", factors, 1, NO_VIDEO)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each stage's images."""
        sizes = self.image_sizes
        return sizes if isinstance(sizes, tuple) else (sizes,)

    @abstractmethod
    def formulations(self) -> tuple[Formulation, ...]:
        """The diffusion of each stage."""

    def crops(self) -> tuple[int | None, ...]:
        """Side of each stage's training crops; None = whole images."""
        crops = per_item("random_crop_sizes", self.random_crop_sizes, len(self.sizes))
        require(crops[0] is None, "got a random_crop_sizes for the first U-Net; it must be None")
        return crops


@dataclass(frozen=True, kw_only=True)
class ImagenSettings(CascadeSettings):
    """Arguments of `Imagen`."""

    timesteps: int | tuple[int, ...] = 1000
    loss_type: str = "l2"
    noise_schedules: str | tuple[str, ...] = "cosine"
    pred_objectives: str | tuple[str, ...] = "noise"
    min_snr_loss_weight: bool | tuple[bool, ...] = True
    min_snr_gamma: Numbers = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("loss_type", self.loss_type, PENALTIES)
        self.formulations()

    def formulations(self) -> tuple[Formulation, ...]:
        """The diffusion of each stage."""
        count = len(self.sizes)
        given = self.noise_schedules
        schedules = (given,) if isinstance(given, str) else given
        # As there: cosine for the first two stages, linear for those after them.
        schedules = (*schedules, *("cosine", "cosine", *["linear"] * count)[len(schedules) :])
        names = "timesteps pred_objectives min_snr_gamma min_snr_loss_weight"
        found = []
        for stage, name in zip(each(self, names, count), schedules, strict=False):
            one_of("noise_schedules", name, SCHEDULES)
            one_of("pred_objectives", stage.pred_objectives, OBJECTIVES)
            gamma = stage.min_snr_gamma if stage.min_snr_loss_weight else math.inf
            with torch.device("cpu"):  # numbers, also of a cascade made on the meta device
                levels = sampling_levels(SCHEDULES[name], stage.timesteps)
            formulation = Formulation(
                levels=levels,
                training_levels=partial(_stratified_levels, SCHEDULES[name]),
                parametrization=OBJECTIVES[stage.pred_objectives],
                weighting=min_snr_weighting(gamma),
                step=ancestral_step(0.0),
                penalty=PENALTIES[self.loss_type],
            )
            found.append(formulation)
        return tuple(found)


def _stratified_levels(schedule: NoiseSchedule, count: int, noise: NoiseSource) -> Tensor:
    return schedule.logsnr(stratified_times(count, noise))


@dataclass(frozen=True, kw_only=True)
class ElucidatedSettings(CascadeSettings):
    """Arguments of `ElucidatedImagen`; Karras et al. 2022, table 5, names the last eleven."""

    num_sample_steps: int | tuple[int, ...] = 32
    sigma_min: Numbers = 0.002
    sigma_max: Numbers = 80
    sigma_data: Numbers = 0.5
    rho: Numbers = 7
    P_mean: Numbers = -1.2
    P_std: Numbers = 1.2
    S_churn: Numbers = 80
    S_tmin: Numbers = 0.05
    S_tmax: Numbers = 50
    S_noise: Numbers = 1.003

    def __post_init__(self) -> None:
        super().__post_init__()
        self.formulations()

    def formulations(self) -> tuple[Formulation, ...]:
        """The diffusion of each stage."""
        names = "num_sample_steps sigma_min sigma_max sigma_data rho P_mean P_std"
        names += " S_churn S_tmin S_tmax S_noise"
        found = []
        for s in each(self, names, len(self.sizes)):
            with torch.device("cpu"):
                levels = karras_levels(
                    s.num_sample_steps, sigma_max=s.sigma_max, sigma_min=s.sigma_min, rho=s.rho
                )
            formulation = Formulation(
                levels=levels,
                training_levels=partial(normal_logsnr, mean=-2 * s.P_mean, std=2 * s.P_std),
                parametrization=VPrediction(),
                weighting=simple_weighting,
                step=heun_step,
                data_std=s.sigma_data,
                elucidated=True,
                churn=Churn(s.S_churn, lowest=s.S_tmin, highest=s.S_tmax, noise_scale=s.S_noise),
            )
            found.append(formulation)
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Settings):
    """Arguments of `sample` beside the text; tensors are images in the input's range."""

    video_frames: Any = None
    cond_images: Any = None
    cond_video_frames: Any = None
    post_cond_video_frames: Any = None
    inpaint_videos: Any = None
    inpaint_images: Any = None
    inpaint_masks: Any = None
    inpaint_resample_times: Annotated[int, Range(1, 10_000)] = 5
    init_images: Any = None
    skip_steps: Any = None
    batch_size: Annotated[int, Range(1, 1 << 20)] = 1
    cond_scale: Numbers = 1.0
    cfg_remove_parallel_component: bool = True
    cfg_keep_parallel_frac: Fraction = 0.0
    lowres_sample_noise_level: float | None = None
    start_at_unet_number: int = 1
    start_image_or_video: Any = None
    stop_at_unet_number: int | None = None
    return_all_unet_outputs: bool = False
    return_pil_images: bool = False
    device: Any = None
    use_tqdm: bool = True
    use_one_unet_in_gpu: bool = True

    def __post_init__(self) -> None:
        for name in _VIDEO:
            if getattr(self, name) is not None:
                raise ConfigError(f"got {name}; {NO_VIDEO}")
        require(
            (self.inpaint_images is None) == (self.inpaint_masks is None),
            "got one of inpaint_images and inpaint_masks; expected both (mask True = keep)",
        )
        super().__post_init__()
        if self.init_images is not None and not self.skip_steps:
            warnings.warn(
                "got init_images without skip_steps: noised to the first level, little is left "
                "of them; give skip_steps, e.g. half of the steps",
                stacklevel=5,  # the line that calls `sample`
            )

    def stages(self, count: int) -> tuple[int, int]:
        """The first and the last of `count` U-Nets that sample; a start needs its image."""
        first, last = self.start_at_unet_number, self.stop_at_unet_number
        last = count if last is None else last
        require(
            1 <= first <= last <= count,
            f"got start_at_unet_number={first}, stop_at_unet_number={last}; expected "
            f"1 <= start <= stop <= {count}",
        )
        require(
            (first > 1) == (self.start_image_or_video is not None),
            "got one of start_at_unet_number > 1 and start_image_or_video; expected both",
        )
        return first, last


@dataclass(frozen=True, kw_only=True)
class ElucidatedSampleOptions(SampleOptions):
    """Those, and the ends of the noise."""

    sigma_min: Any = None
    sigma_max: Any = None
