"""A step of a task whose rows look at each other: the loss sees the embeddings of the whole batch.

In two passes (Gao et al. 2021, arXiv:2101.06983): all parts of all processes are embedded without
gradient; the loss gives every embedding its gradient; each part is embedded again, and gets it.
Gradients are those of one process with the whole batch, and memory that of one part. One part
needs one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor

from calotype.data.batch import Batch
from calotype.training.distributed import Group
from calotype.training.parallel import SingleProcess
from calotype.training.task import AnyTask, CoupledTask, Embedded, Inputs


def coupled_backward(
    task: AnyTask,
    parallel: SingleProcess,
    batch: Batch,
    parts: Sequence[Inputs],
    seed: Callable[[int], None],
) -> Tensor:
    """Gradients of the mean loss over all rows of the batch.

    Args:
        task: a `CoupledTask`.
        parallel: the processes.
        batch: this process's part of it.
        parts: its rows.
        seed: called before part number n is embedded, so that both passes drop out the same.

    Returns:
        The loss of each of this process's rows, (B,) float64 on the CPU.
    """
    coupled, last = cast(CoupledTask, task), len(parts) - 1

    def embed(number: int) -> Embedded:
        seed(number)
        return parallel.embed(parts[number])

    with parallel.part(last=True) if last == 0 else torch.no_grad():
        embedded = [embed(number) for number in range(len(parts))]
    rows = of_whole_batch(torch.cat([e.rows.detach() for e in embedded]), batch, parallel.group)
    labels = of_whole_batch(
        torch.cat([coupled.labels(part) for part in parts]), batch, parallel.group
    )
    rows = rows.requires_grad_()
    shared = embedded[0].shared.detach().requires_grad_()
    losses = coupled.coupled_losses(Embedded(rows, shared), labels)
    to_rows, to_shared = torch.autograd.grad(losses.sum() / batch.images, (rows, shared))
    # Gradients are averaged over processes, not added; that of `shared` is whole on each.
    own = _own(to_rows, batch) * parallel.group.world_size
    start = 0
    for number, part in enumerate(parts):
        with nullcontext() if last == 0 else parallel.part(last=number == last):
            again = embedded[0] if last == 0 else embed(number)
            gradient = own[start : start + len(part)].to(again.rows)
            once = to_shared if number == last else torch.zeros_like(to_shared)
            torch.autograd.backward([again.rows, again.shared], [gradient, once])
        start += len(part)
    return _own(losses.detach(), batch).double().cpu()


def of_whole_batch(own: Tensor, batch: Batch, group: Group) -> Tensor:
    """Numbers of the rows of all processes, (B, ...), on the device of this one's `own`."""
    if batch.share is None:
        return own
    rows = torch.tensor(batch.share.rows)
    counts = rows < batch.share.total
    every = torch.zeros((batch.share.total, *own.shape[1:]), dtype=own.dtype)
    every[rows[counts]] = own.cpu()[counts]
    return group.all_reduce(every).to(own.device)


def _own(every: Tensor, batch: Batch) -> Tensor:
    """The rows of this process; 0 for those that do not count."""
    if batch.share is None:
        return every
    rows = torch.tensor(batch.share.rows, device=every.device)
    counts = rows < batch.share.total
    own = every[rows.clamp_max(batch.share.total - 1)]
    return own * counts.view(-1, *[1] * (own.ndim - 1)).to(own)
