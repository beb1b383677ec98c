"""Arguments of `Imagen`, `ElucidatedImagen` and of their `sample`, checked.

Names, defaults and meanings are those of imagen-pytorch 2.1.0. Video is not offered here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from calotype.config.ranges import in_range, require
from calotype.errors import ConfigError
from calotype.interop.imagen_pytorch.formulation import (
    OBJECTIVES,
    PENALTIES,
    SCHEDULES,
    Churn,
    Formulation,
    elucidated_formulation,
    imagen_formulation,
)
from calotype.interop.imagen_pytorch.options import per_item, refuse_unless
from calotype.interop.imagen_pytorch.text import DEFAULT_T5_NAME

NO_VIDEO = "video is not offered here"
Numbers = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CascadeSettings:
    """What both cascades take."""

    image_sizes: int | tuple[int, ...]
    text_encoder_name: str = DEFAULT_T5_NAME
    text_embed_dim: int | None = None
    channels: int = 3
    cond_drop_prob: float = 0.1
    random_crop_sizes: int | tuple[int | None, ...] | None = None
    lowres_noise_schedule: str = "linear"
    lowres_sample_noise_level: float = 0.2
    per_sample_random_aug_noise_level: bool = False
    condition_on_text: bool = True
    auto_normalize_img: bool = True
    dynamic_thresholding: bool | tuple[bool, ...] = True
    dynamic_thresholding_percentile: float = 0.95
    only_train_unet_number: int | None = None
    temporal_downsample_factor: int = 1
    resize_cond_video_frames: bool = True
    resize_mode: str = "nearest"

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("cond_drop_prob", self.cond_drop_prob, 0.0, 1.0)
        in_range("lowres_sample_noise_level", self.lowres_sample_noise_level, 0.0, 1.0)
        in_range("dynamic_thresholding_percentile", self.dynamic_thresholding_percentile, 1e-3, 1)
        in_range("channels", self.channels, 1, 1024)
        _one_of("lowres_noise_schedule", self.lowres_noise_schedule, SCHEDULES)
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

    def crops(self) -> tuple[int | None, ...]:
        """Side of each stage's training crops; None = whole images."""
        crops = per_stage("random_crop_sizes", self.random_crop_sizes, len(self.sizes))
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
        """Check ranges and names."""
        super().__post_init__()
        _one_of("loss_type", self.loss_type, PENALTIES)
        self.formulations()

    def formulations(self) -> tuple[Formulation, ...]:
        """The diffusion of each stage."""
        count = len(self.sizes)
        given = self.noise_schedules
        schedules = (given,) if isinstance(given, str) else given
        # As there: cosine for the first two stages, linear for those after them.
        schedules = (*schedules, *("cosine", "cosine", *["linear"] * count)[len(schedules) :])
        timesteps = per_stage("timesteps", self.timesteps, count)
        objectives = per_stage("pred_objectives", self.pred_objectives, count)
        gammas = per_stage("min_snr_gamma", self.min_snr_gamma, count)
        clipped = per_stage("min_snr_loss_weight", self.min_snr_loss_weight, count)
        for stage in range(count):
            _one_of("noise_schedules", schedules[stage], SCHEDULES)
            _one_of("pred_objectives", objectives[stage], OBJECTIVES)
        return tuple(
            imagen_formulation(
                schedule=schedules[stage],
                timesteps=timesteps[stage],
                objective=objectives[stage],
                loss_type=self.loss_type,
                min_snr_gamma=gammas[stage] if clipped[stage] else None,
            )
            for stage in range(count)
        )


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
        """Check ranges."""
        super().__post_init__()
        self.formulations()

    def formulations(self, **changes: Numbers | None) -> tuple[Formulation, ...]:
        """The diffusion of each stage; `changes` replace fields that are not None."""
        count = len(self.sizes)

        def each(name: str) -> tuple[Any, ...]:
            change = changes.get(name)
            return per_stage(name, getattr(self, name) if change is None else change, count)

        return tuple(
            elucidated_formulation(
                steps=each("num_sample_steps")[stage],
                sigma_range=(each("sigma_min")[stage], each("sigma_max")[stage]),
                rho=each("rho")[stage],
                data_std=each("sigma_data")[stage],
                log_normal=(each("P_mean")[stage], each("P_std")[stage]),
                churn=Churn(
                    amount=each("S_churn")[stage],
                    lowest=each("S_tmin")[stage],
                    highest=each("S_tmax")[stage],
                    noise_scale=each("S_noise")[stage],
                ),
            )
            for stage in range(count)
        )


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Arguments of `sample` beside the text; tensors are images in the input's range."""

    video_frames: Any = None
    cond_images: Any = None
    cond_video_frames: Any = None
    post_cond_video_frames: Any = None
    inpaint_videos: Any = None
    inpaint_images: Any = None
    inpaint_masks: Any = None
    inpaint_resample_times: int = 5
    init_images: Any = None
    skip_steps: Any = None
    batch_size: int = 1
    cond_scale: Numbers = 1.0
    cfg_remove_parallel_component: bool = True
    cfg_keep_parallel_frac: float = 0.0
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
        """Refuse video, and halves of pairs."""
        for name in (
            "video_frames",
            "cond_video_frames",
            "post_cond_video_frames",
            "inpaint_videos",
        ):
            if getattr(self, name) is not None:
                raise ConfigError(f"got {name}; {NO_VIDEO}")
        if (self.inpaint_images is None) != (self.inpaint_masks is None):
            raise ConfigError(
                "got one of inpaint_images and inpaint_masks; expected both (mask True = keep)"
            )
        in_range("inpaint_resample_times", self.inpaint_resample_times, 1, 10_000)
        in_range("cfg_keep_parallel_frac", self.cfg_keep_parallel_frac, 0.0, 1.0)
        in_range("batch_size", self.batch_size, 1, 1 << 20)

    def stages(self, count: int) -> tuple[int, int]:
        """The first and the last of `count` U-Nets that draw.

        Raises:
            ConfigError: out of range, or a start without its image.
        """
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

    def warn(self) -> None:
        """Say what has an effect that one may not expect."""
        if self.init_images is not None and not self.skip_steps:
            warnings.warn(
                "got init_images without skip_steps: noised to the first level, little is left "
                "of them; give skip_steps, e.g. half of the steps",
                stacklevel=3,
            )


@dataclass(frozen=True, kw_only=True)
class ElucidatedSampleOptions(SampleOptions):
    """Those, and the ends of the noise."""

    sigma_min: Any = None
    sigma_max: Any = None


def per_stage(name: str, value: Any, count: int) -> tuple[Any, ...]:
    """One value for each of `count` U-Nets."""
    return per_item(name, value, count, of="U-Nets")


def _one_of(name: str, value: str, known: dict[str, Any]) -> None:
    if value not in known:
        raise ConfigError(f"got {name}={value!r}; expected one of {sorted(known)}")
