"""Stages of GLIDE's networks, with the schedules and sampling its authors used.

Reference: Nichol et al. 2021, arXiv:2112.10741; numbers as in the published notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.stage import StageConfig
from calotype.errors import CalotypeError
from calotype.interop.glide.keys import converted, network_config, network_names
from calotype.interop.safety import Shapes, mismatch

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
            steps=len(FAST_27), timesteps=FAST_27[::-1], sampler="ddim", threshold_percentile=None
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


def check_names(shapes: Shapes, names: Mapping[str, str], expected: Mapping[str, Tensor]) -> None:
    """Refuse a file whose names or shapes differ from what a network has."""
    # Convolutions of width one are linear layers here.
    found = {name: shape[:2] if shape[2:] == (1,) else shape for name, shape in shapes.items()}
    there = {here: name for name, here in names.items()}
    wrong = mismatch(found, {there.get(here, here): t.shape for here, t in expected.items()})
    if wrong is not None:
        raise CalotypeError(f"a file of GLIDE {wrong}; expected the published tensors")
