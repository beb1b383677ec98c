"""Stages of GLIDE's networks, with the schedules and sampling its authors used.

Reference: Nichol et al. 2021, arXiv:2112.10741; numbers as in the published notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.stage import StageConfig
from calotype.errors import CalotypeError, UsageError
from calotype.interop.glide.keys import Shapes, converted, network_config, network_names

# The 27 steps found for the up-sampler, of 1000.
FAST_27: tuple[int, ...] = (
    *(0, 22, 44, 66, 88, 111, 133, 155, 177, 199),
    *(200, 222, 244, 266, 288, 311, 333, 355, 377, 399),
    *(400, 500, 599, 600, 799, 800, 997),
)


def glide_stage(
    shapes: Shapes,
    read: Callable[[str], Tensor],
    *,
    head_dim: int = 64,
    resolution: int | None = None,
) -> Stage:
    """A stage with the weights of one of GLIDE's four networks.

    Args:
        shapes: of every tensor in the published file, by name; all are checked before one is read.
        read: returns the tensor of a name, in any float type.
        head_dim: channels of one attention head; 64 in all published files.
        resolution: side of the images it samples; None = 64 for a base, 256 for an up-sampler.

    Raises:
        CalotypeError: tensors are missing, unknown or of a wrong shape.
    """
    config = stage_config(shapes, head_dim=head_dim, resolution=resolution)
    with torch.device("meta"):
        stage = Stage(config)
    names = network_names(shapes)
    check_names(shapes, names, stage.network.state_dict())
    state = {
        here: converted(name, read(name), head_dim).to(torch.float32)
        for name, here in names.items()
    }
    stage.network.load_state_dict(state, assign=True)
    return stage.requires_grad_(True).eval()


def stage_config(
    shapes: Shapes, *, head_dim: int = 64, resolution: int | None = None
) -> StageConfig:
    """The settings of the stage whose tensors have these shapes; see `glide_stage`."""
    network = network_config(shapes, head_dim=head_dim)
    if resolution is None:
        resolution = 256 if network.lowres else 64
    sampling = SamplingConfig(
        steps=100,
        sampler="ddpm",
        guidance_weight=5.0 if network.extra_channels > 0 else 3.0,
        threshold_percentile=None,
    )
    if network.lowres:
        sampling = SamplingConfig(
            steps=len(FAST_27),
            timesteps=FAST_27[::-1],
            sampler="ddim",
            threshold_percentile=None,
        )
    return StageConfig(
        resolution=resolution,
        network=network,
        lowres_resolution=resolution // 4 if network.lowres else None,
        schedule=DiscreteScheduleConfig(
            betas="linear" if network.lowres else "squaredcos_cap_v2",
            spacing="linspace",
            precision="float64",
        ),
        lowres=LowresConfig(filter="bilinear"),
        sampling=sampling,
    )


def respaced(steps: int, sections: Sequence[int]) -> tuple[int, ...]:
    """Rising timesteps, so many evenly spaced in each of as many sections of `steps`.

    GLIDE's "100" is `respaced(1000, (100,))`, its "25,25,25,25" `respaced(1000, (25,) * 4)`.

    Raises:
        UsageError: a section is too short for its count.
    """
    size, longer = divmod(steps, len(sections)) if sections else (0, 0)
    chosen: list[int] = []
    start = 0
    for place, count in enumerate(sections):
        length = size + (1 if place < longer else 0)
        if not 1 <= count <= length:
            raise UsageError(f"got {count} steps of a section of {length}; expected 1 to {length}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):  # summed up, as there: the rounding of .5 depends on it
            chosen.append(start + round(position))
            position += stride
        start += length
    return tuple(chosen)


def check_names(shapes: Shapes, names: Mapping[str, str], expected: Mapping[str, Tensor]) -> None:
    """Refuse a file whose names or shapes differ from what a network has."""
    unknown = sorted(set(shapes) - set(names))
    missing = sorted(set(expected) - set(names.values()))
    if unknown or missing:
        what = f"the unknown {unknown[0]!r:.100}" if unknown else f"nothing for {missing[0]!r}"
        raise CalotypeError(f"got {what} in a GLIDE file; expected the published tensors")
    for name, here in names.items():
        want = tuple(expected[here].shape)
        # Convolutions of width one are linear layers here.
        got = shapes[name][:2] if shapes[name][2:] == (1,) else tuple(shapes[name])
        if got != want:
            raise CalotypeError(
                f"got {name!r:.100} of shape {list(shapes[name])}; expected {list(want)}"
            )
