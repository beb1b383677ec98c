"""Typed settings: frozen dataclasses, checked when they are made, written beside the weights.

`load_config` reads JSON into them and refuses what it does not know; `to_dict` writes them.
This module imports no torch, so that the command line can read a recipe at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from calotype.errors import ConfigError

Sampler = Literal["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"]
T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One resolution of a U-Net.

    Args:
        channels: feature channels.
        blocks: residual blocks on the way down; see the network for the way up.
        self_attention: self-attention after each block; text keys and values are joined to it.
        cross_attention: attention to the text alone, where there is no self-attention.
        canvas_channels: channels of the text canvas added here; 0 = none.
        checkpoint: recompute this level in the backward pass instead of keeping it in memory.
    """

    channels: int
    blocks: int
    self_attention: bool = False
    cross_attention: bool = False
    canvas_channels: int = 0
    checkpoint: bool = False

    def __post_init__(self) -> None:
        """Check the counts."""
        _require(self.channels > 0, f"got channels={self.channels}; expected at least 1")
        _require(self.blocks > 0, f"got blocks={self.blocks}; expected at least 1")
        _require(
            not (self.self_attention and self.cross_attention),
            "got both self_attention and cross_attention in one level; choose one: "
            "self-attention already attends to the text",
        )


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The base U-Net (ADM; Saharia et al. 2022, appendix F.1).

    Args:
        levels: one record a resolution, finest first; each is half as fine as the one before.
        text_dim: width of the text encoder's states; 0 = no text.
        fold: side of the pixel squares folded into channels before the first level.
        head_dim: channels of one attention head.
        embed_dim: width of the noise-level embedding; 0 = four times the first level's channels.
        dropout: within residual blocks, in [0, 1).
        lowres: whether a low-resolution picture is joined to the input.
        text_pooling: how the pooled text is made: "attention" (the paper), or "whitened_mean"
            (mean of the token states, whitened with statistics of the training captions).
        canvas_hidden: width of the text canvas's hidden layer.
        canvas_resolution: side in pixels of the picture the canvas was made for.
    """

    levels: tuple[LevelConfig, ...]
    text_dim: int
    fold: int = 1
    head_dim: int = 64
    embed_dim: int = 0
    dropout: float = 0.0
    lowres: bool = False
    text_pooling: Literal["attention", "whitened_mean"] = "attention"
    canvas_hidden: int = 1024
    canvas_resolution: int = 64
    kind: Literal["unet"] = "unet"

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        _check_network(self)

    @property
    def divisor(self) -> int:
        """Picture sides must be multiples of this many pixels."""
        return int(self.fold * 2 ** (len(self.levels) - 1))


@dataclass(frozen=True, kw_only=True)
class EfficientUNetConfig:
    """The Efficient U-Net of super-resolution stages (Saharia et al. 2022, appendix B).

    Every level halves the resolution before its blocks and doubles it after them. Fields as in
    `UNetConfig`, and:

    Args:
        stem_channels: of the first and last convolutions; 0 = as the first level.
    """

    levels: tuple[LevelConfig, ...]
    text_dim: int
    fold: int = 1
    head_dim: int = 64
    embed_dim: int = 0
    dropout: float = 0.0
    lowres: bool = True
    text_pooling: Literal["attention", "whitened_mean"] = "attention"
    stem_channels: int = 0
    kind: Literal["efficient_unet"] = "efficient_unet"

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        _check_network(self)
        _require(
            all(level.canvas_channels == 0 for level in self.levels),
            "got canvas_channels in an EfficientUNetConfig; only the base U-Net has a text canvas",
        )

    @property
    def divisor(self) -> int:
        """Picture sides must be multiples of this many pixels."""
        return int(self.fold * 2 ** len(self.levels))


NetworkConfig = UNetConfig | EfficientUNetConfig


def _check_network(config: NetworkConfig) -> None:
    _require(len(config.levels) > 0, "got no levels; expected at least one LevelConfig")
    _require(config.fold >= 1, f"got fold={config.fold}; expected at least 1")
    _require(config.text_dim >= 0, f"got text_dim={config.text_dim}; expected 0 or more")
    _require(0 <= config.dropout < 1, f"got dropout={config.dropout}; expected [0, 1)")
    for level in config.levels:
        attends = level.self_attention or level.cross_attention
        _require(
            not attends or level.channels % config.head_dim == 0,
            f"got {level.channels} channels with attention heads of {config.head_dim}; expected "
            "a multiple: change channels or head_dim",
        )
        _require(
            config.text_dim > 0 or not (level.cross_attention or level.canvas_channels),
            "got cross_attention or canvas_channels with text_dim=0; expected a text_dim",
        )


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a stage draws.

    Args:
        steps: evaluations of the grid, 1 to 4096.
        sampler: which step.
        grid: levels of the schedule at equal times, or Karras et al. 2022, equation 5.
        sigma_max: noisiest sigma/alpha of the Karras grid.
        sigma_min: last noisy sigma/alpha of the Karras grid.
        rho: curvature of the Karras grid.
        guidance_weight: Imagen's w; 1 = off.
        guidance_interval: sigma/alpha between which guidance acts (Kynkaanniemi et al. 2024);
            None = everywhere.
        guidance_rescale: phi of Lin et al. 2023, section 3.4; 0 = off.
        oscillating_guidance: alternate guidance with weight 1 (Saharia et al. 2022, appendix).
        threshold_percentile: dynamic-threshold percentile in (0, 1]; None = static clip.
        aug_level: noise on the low-resolution picture, in [0, 1].
        ddpm_interpolation: the paper's gamma of ancestral sampling, in [0, 1].
    """

    steps: int = 256
    sampler: Sampler = "ddpm"
    grid: Literal["schedule", "karras"] = "schedule"
    sigma_max: float = 80.0
    sigma_min: float = 0.02
    rho: float = 5.0
    guidance_weight: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = 0.0
    oscillating_guidance: bool = False
    threshold_percentile: float | None = 0.995
    aug_level: float = 0.0
    ddpm_interpolation: float = 0.3

    def __post_init__(self) -> None:
        """Check the ranges."""
        _in_range("steps", self.steps, 1, 4096)
        _in_range("guidance_weight", self.guidance_weight, 0.0, 1000.0)
        _in_range("guidance_rescale", self.guidance_rescale, 0.0, 1.0)
        _in_range("aug_level", self.aug_level, 0.0, 1.0)
        _in_range("ddpm_interpolation", self.ddpm_interpolation, 0.0, 1.0)
        _require(
            self.threshold_percentile is None or 0 < self.threshold_percentile <= 1,
            f"got threshold_percentile={self.threshold_percentile}; expected a number in (0, 1], "
            "or null for a static clip",
        )
        _require(
            0 < self.sigma_min < self.sigma_max < float("inf"),
            f"got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; "
            "expected 0 < sigma_min < sigma_max",
        )
        _require(self.rho > 0, f"got rho={self.rho}; expected a positive number")


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses nan
        raise ConfigError(f"got {name}={value}; expected a number from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One diffusion model of a cascade.

    Args:
        resolution: side of the pictures it was made for, in pixels.
        network: its network.
        lowres_resolution: side of the picture it enlarges; None for a base.
        schedule: noise schedule of training times.
        parametrization: what the network predicts.
        data_std: standard deviation of what is diffused; networks see unit variance
            (Karras et al. 2022, section 5). 1 = pictures as they are.
        residual: diffuse the difference to the enlarged low-resolution picture.
        sampling: how it draws unless told otherwise.
    """

    resolution: int
    network: NetworkConfig
    lowres_resolution: int | None = None
    schedule: Literal["cosine", "linear"] = "cosine"
    parametrization: Literal["eps", "v", "x"] = "eps"
    data_std: float = 1.0
    residual: bool = False
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        _in_range("resolution", self.resolution, 1, 65536)
        _in_range("data_std", self.data_std, 1e-3, 1e3)
        _require(
            self.network.lowres == (self.lowres_resolution is not None),
            f"got lowres={self.network.lowres} with lowres_resolution={self.lowres_resolution}; "
            "expected both or neither",
        )
        _require(
            not self.residual or self.lowres_resolution is not None,
            "got residual=true in a base stage; expected a lowres_resolution",
        )
        _require(
            self.resolution % self.network.divisor == 0,
            f"got resolution {self.resolution}; expected a multiple of {self.network.divisor} "
            "(fold times the U-Net's down-sampling)",
        )


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """A cascade: the stages from coarse to fine, and the text encoder they were trained with.

    Args:
        stages: from the base to the finest.
        text_encoder: specification as `calotype.text.build_text_encoder` reads it; "none" for
            an unconditional cascade.
        name: what the cascade is called.
    """

    stages: tuple[StageConfig, ...]
    text_encoder: str
    name: str = "cascade"

    def __post_init__(self) -> None:
        """Check that each stage enlarges the one before."""
        _require(len(self.stages) > 0, "got no stages; expected at least one")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            _require(
                after.lowres_resolution == before.resolution,
                f"got a stage that enlarges {after.lowres_resolution} after one of "
                f"{before.resolution}; expected lowres_resolution={before.resolution}",
            )
        # A cascade may also be super-resolution alone, fed by `upscale`.


@dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """Training levels at uniform times of the schedule, stratified within a batch."""

    kind: Literal["uniform_times"] = "uniform_times"


@dataclass(frozen=True, kw_only=True)
class NormalLogSNR:
    """Training levels with normal log-SNR (Karras et al. 2022, section 5), stratified.

    Args:
        mean: of logsnr = log(alpha^2 / sigma^2).
        std: of the same.
    """

    mean: float
    std: float
    kind: Literal["normal_logsnr"] = "normal_logsnr"

    def __post_init__(self) -> None:
        """Check the spread."""
        _require(self.std > 0, f"got std={self.std}; expected a positive number")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How pictures become training examples.

    Args:
        caption_variants: captions per picture to choose from, embedded once ahead.
        styles: style phrases or set names to train on; None = all that the data has.
        fit: pictures that are not square: "crop" (centre) or "pad".
        small: pictures smaller than the stage: "enlarge" or "skip".
        crop: side of random crops in pixels of the stage's resolution; None = whole pictures.
        crops_per_picture: crops cut from each decoded picture.
        flip: mirror pictures at random.
        broken_share: share of broken pictures above which training refuses, in [0, 1].
        missing_captions: a caption that is not in the embedding store is computed or refused.
        cache_bytes: decoded pictures kept in memory up to this size.
    """

    caption_variants: int = 16
    styles: tuple[str, ...] | None = None
    fit: Literal["crop", "pad"] = "crop"
    small: Literal["enlarge", "skip"] = "enlarge"
    crop: int | None = None
    crops_per_picture: int = 1
    flip: bool = False
    broken_share: float = 0.2
    missing_captions: Literal["compute", "refuse"] = "compute"
    cache_bytes: int = 2_500_000_000

    def __post_init__(self) -> None:
        """Check the ranges."""
        _in_range("caption_variants", self.caption_variants, 1, 10000)
        _in_range("crops_per_picture", self.crops_per_picture, 1, 1024)
        _in_range("broken_share", self.broken_share, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW or Adafactor with warm-up, constant rate and decay; all lengths in images.

    Args:
        kind: which optimizer.
        learning_rate: peak rate.
        betas: decay of the moments.
        eps: added to the denominator.
        weight_decay: decoupled decay.
        warmup_images: linear warm-up.
        decay_from: share of the run after which the rate decays, in [0, 1]; 1 = never.
        final_rate: rate at the end as a share of the peak.
        grad_clip_norm: largest gradient norm; None = no clipping.
        accumulation: micro-batches per step.
    """

    kind: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_images: int = 10_000
    decay_from: float = 1.0
    final_rate: float = 0.01
    grad_clip_norm: float | None = 1.0
    accumulation: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        _in_range("learning_rate", self.learning_rate, 0.0, 10.0)
        _in_range("decay_from", self.decay_from, 0.0, 1.0)
        _in_range("final_rate", self.final_rate, 0.0, 1.0)
        _in_range("accumulation", self.accumulation, 1, 100_000)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A recipe of one stage: everything that decides a training run.

    Args:
        stage: what is trained.
        text_encoder: as in `CascadeConfig`.
        data: how pictures become examples.
        optimizer: how weights move.
        levels: where noise levels are drawn.
        weighting: of the loss by noise level.
        batch_size: examples per optimizer step.
        total_images: length of the run.
        ema_halflife_images: half-life of the averaged weights.
        text_dropout: share of captions replaced by the null caption.
        aug_level_max: aug_level is drawn uniformly from [0, this].
        checkpoint_images: images between checkpoints.
        keep_checkpoints: newest checkpoints kept.
        grid_images: images between grids of the fixed prompts.
        validation_images: images between validations.
        grid_captions: the fixed prompts.
        seed: of everything random.
    """

    stage: StageConfig
    text_encoder: str = "minilm"
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    levels: UniformTimes | NormalLogSNR = field(default_factory=UniformTimes)
    weighting: Literal["none", "min_snr", "sigmoid"] = "none"
    batch_size: int = 64
    total_images: int = 1_000_000
    ema_halflife_images: int = 25_000
    text_dropout: float = 0.1
    aug_level_max: float = 1.0
    checkpoint_images: int = 20_000
    keep_checkpoints: int = 3
    grid_images: int = 20_000
    validation_images: int = 20_000
    grid_captions: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _in_range("batch_size", self.batch_size, 1, 1_000_000)
        _in_range("total_images", self.total_images, 1, 10**13)
        _in_range("text_dropout", self.text_dropout, 0.0, 1.0)
        _in_range("aug_level_max", self.aug_level_max, 0.0, 1.0)
        _in_range("seed", self.seed, 0, 2**63 - 1)
        for name in ("checkpoint_images", "keep_checkpoints", "ema_halflife_images"):
            _in_range(name, getattr(self, name), 1, 10**13)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `calotype train NAME` runs: the stages in turn, coarse to fine.

    Args:
        name: what the recipe is called.
        stages: one training configuration a stage; all recipes but `tiny` have one.
        note: for people.
    """

    name: str
    stages: tuple[TrainConfig, ...]
    note: str = ""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON data; `from_dict` reads it back."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))


def load_config(path: Path, kind: type[T]) -> T:
    """Read a JSON file into a config.

    Raises:
        ConfigError: the file cannot be read, is no JSON, has unknown or missing keys, or values
            of the wrong kind or range.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    try:
        return from_dict(data, kind)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def from_dict(data: Any, kind: type[T]) -> T:
    """Read plain JSON data into the dataclass `kind`; the inverse of `to_dict`."""
    return typing.cast(T, _convert(data, kind, kind.__name__))


def override(config: T, assignments: typing.Sequence[str]) -> T:
    """Apply `key.sub=value` assignments (values are JSON, or else strings) to a config."""
    data = to_dict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"got {assignment!r}; expected key=value, e.g. batch_size=32")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        _assign(data, key.strip(), value)
    return from_dict(data, type(config))


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place: Any = data
    for name in parents:
        index: Any = int(name) if isinstance(place, list) and name.isdigit() else name
        try:
            place = place[index]
        except (KeyError, IndexError, TypeError):
            raise ConfigError(f"unknown key {name!r} in {key!r}{_hint(name, place)}") from None
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict) and last in place:
        place[last] = value
    else:
        raise ConfigError(f"unknown key {last!r} in {key!r}{_hint(last, place)}")


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known) if isinstance(known, dict) else [], 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_record(value, kind)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(kind), where)
    if origin is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"got {where}={value!r}; expected one of {list(get_args(kind))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, get_args(kind), where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    expected = "nothing (null)" if kind is type(None) else kind.__name__
    raise ConfigError(f"got {where}={value!r}; expected {expected}")


def _convert_record(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"got {value!r}; expected the fields of {kind.__name__}")
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints:
            raise ConfigError(f"unknown key {key!r} in {kind.__name__}{_hint(key, hints)}")
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(value))
    if missing:
        raise ConfigError(f"missing {missing} in {kind.__name__}; add them")
    return kind(**{k: _convert(v, hints[k], f"{kind.__name__}.{k}") for k, v in value.items()})


def _convert_tuple(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"got {where}={value!r}; expected a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_convert(v, kinds[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(kinds):
        raise ConfigError(f"got {len(value)} values for {where}; expected {len(kinds)}")
    return tuple(_convert(v, k, where) for v, k in zip(value, kinds, strict=True))


def _convert_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    records = {k.__dataclass_fields__["kind"].default: k for k in kinds if hasattr(k, "kind")}
    if records and isinstance(value, dict):
        name = value.get("kind")
        if name not in records:
            raise ConfigError(f"got {where}.kind={name!r}; expected one of {list(records)}")
        return _convert(value, records[name], where)
    return _convert(value, kinds[0], where)
