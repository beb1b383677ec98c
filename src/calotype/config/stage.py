"""Settings of one diffusion model of a cascade, and of the cascade."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from calotype.config.adm import AdmConfig, TokensText
from calotype.config.network import DraftConfig, EfficientUNetConfig, UNetConfig
from calotype.config.ranges import Range, Resolution, Settings, require
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.typed_json import Retired

NetworkConfig = UNetConfig | EfficientUNetConfig | AdmConfig


@dataclass(frozen=True, kw_only=True)
class StageConfig(Settings):
    """One diffusion model of a cascade.

    Args:
        resolution: side of the images it was made for, in pixels.
        network: its network.
        lowres_resolution: side of the image it enlarges; None for a base.
        schedule: noise schedule of training times, or the table of a published model.
        parametrization: what the network predicts.
        data_std: standard deviation of what is diffused; networks see unit variance
            (Karras et al. 2022, section 5). 1 = images as they are.
        residual: diffuse the difference to the enlarged low-resolution image.
        lowres: how the low-resolution image is enlarged and noised.
        sampling: how it samples by default.
        classes: names of the network's classes, in the order of their numbers; () in a recipe = as
            the data name them, sorted, which a run records.
        null_class: whether it was trained on the null class, too: it samples without a class, and
            guided, then. A run records what its class_dropout says.
    """

    # It chose the order of operations of GLIDE's code: `interop.glide.ReferenceStage` now.
    RETIRED = (Retired("arithmetic"),)

    resolution: Resolution
    network: NetworkConfig
    lowres_resolution: Resolution | None = None
    schedule: Literal["cosine", "linear"] | DiscreteScheduleConfig = "cosine"
    parametrization: Literal["eps", "v", "x"] = "eps"
    data_std: Annotated[float, Range(1e-3, 1e3)] = 1.0
    residual: bool = False
    lowres: LowresConfig = field(default_factory=LowresConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    classes: tuple[str, ...] = ()
    null_class: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.network.lowres == (self.lowres_resolution is not None),
            f"got lowres={self.network.lowres} with lowres_resolution={self.lowres_resolution}; "
            "expected both or neither",
        )
        require(
            not self.residual or self.lowres_resolution is not None,
            "got residual=true in a base stage; expected a lowres_resolution",
        )
        require(
            self.draft is None or self.draft.resolution == self.resolution,
            f"got draft={self.draft} in a stage of {self.resolution} pixels; expected a draft of "
            "the stage's resolution",
        )
        require(
            self.resolution % self.network.divisor == 0,
            f"got resolution {self.resolution}; expected a multiple of {self.network.divisor} "
            "(fold times the U-Net's down-sampling)",
        )
        require(
            not self.classes or len(set(self.classes)) == len(self.classes) == self.class_count,
            f"got {len(set(self.classes))} names of classes for a network with "
            f"classes={self.class_count}; expected a name each, or none",
        )
        self.check_start(self.sampling)

    def again(self) -> StageConfig:
        """The same network for images as much larger again: it enlarges its own."""
        assert self.lowres_resolution is not None
        larger = self.resolution**2 // self.lowres_resolution
        return replace(self, resolution=larger, lowres_resolution=self.resolution)

    def check_start(self, sampling: SamplingConfig) -> None:
        """Refuse sampling settings that start from a draft which the network does not have."""
        require(
            sampling.start == "noise" or self.draft is not None,
            f'got start="draft" for the {self.resolution} stage, whose network has no draft; '
            'expected start="noise", or a network with a draft (network.draft)',
        )

    @property
    def token_tower(self) -> TokensText | None:
        """The text tower of its network, which takes token ids, if it has one of its own."""
        text = self.network.text if isinstance(self.network, AdmConfig) else None
        return text if isinstance(text, TokensText) else None

    @property
    def takes_ids(self) -> bool:
        """Whether its network has a text tower of its own, and takes token ids."""
        return self.token_tower is not None

    @property
    def has_text_modules(self) -> bool:
        """Whether it is one ADM network (no pair of them) with modules that read captions."""
        network = self.network
        return isinstance(network, AdmConfig) and network.text is not None and not network.last_step

    @property
    def has_variance(self) -> bool:
        """Whether its network says the variance of the reverse step."""
        return isinstance(self.network, AdmConfig) and self.network.learned_variance

    @property
    def class_count(self) -> int:
        """How many classes its network is told of; 0 = none."""
        return self.network.classes if isinstance(self.network, AdmConfig) else 0

    @property
    def draft(self) -> DraftConfig | None:
        """The draft its network is conditioned on, if any."""
        return self.network.draft if isinstance(self.network, UNetConfig) else None


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
        require(len(self.stages) > 0, "got no stages; expected at least one")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            require(
                after.lowres_resolution == before.resolution,
                f"got a stage that enlarges {after.lowres_resolution} after one of "
                f"{before.resolution}; expected lowres_resolution={before.resolution}",
            )
        known = {stage.classes for stage in self.stages if stage.class_count > 0}
        require(
            len(known) <= 1,
            f"got stages with {' and '.join(str(len(names)) for names in sorted(known))} names of "
            "classes, or with others; expected the same names in all that have classes",
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it can be told of; () = none."""
        return next((stage.classes for stage in self.stages if stage.class_count > 0), ())

    @property
    def token_context(self) -> int | None:
        """Most token ids that any of its networks reads of a caption; None where none reads ids."""
        towers = (stage.token_tower for stage in self.stages)
        return max((tower.context for tower in towers if tower is not None), default=None)
