"""Numbers that are not finite are an error with a name, and never an image."""

from __future__ import annotations

from torch import Tensor, nn

from calotype.errors import NotFiniteError


def check_finite(numbers: Tensor, maker: str, module: object) -> Tensor:
    """The numbers, if all are finite.

    Args:
        numbers: of any shape.
        maker: what made them and how, such as "the 64 stage sampled".
        module: whose weights are looked at where they are not; any other object has none.

    Raises:
        NotFiniteError: some are NaN or infinite; the message names a weight that is, if any is.
    """
    if bool(numbers.isfinite().all()):
        return numbers
    where = f"{maker} numbers that are not finite"
    weights = module.state_dict() if isinstance(module, nn.Module) else {}
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise NotFiniteError(f"{where}: so is its weight {name!r}; get the weights again")
    raise NotFiniteError(
        f"{where}, though its weights are finite; expected images: sample in float32, with less "
        "guidance or a smaller LoRA scale, or get the weights again"
    )
