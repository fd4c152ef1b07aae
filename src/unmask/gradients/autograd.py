"""The gradient as the model itself gives it."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.models.graph_memory import rows_of_a_graph
from unmask.randomness import use_rows
from unmask.types import Objective

__all__ = ["autograd"]


def autograd(objective: Objective, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Values (B,) and gradient (B, ...) of ``objective`` at ``z`` by backpropagation.

    Where the objective does not depend on ``z`` at all, the gradient is zero. Inside
    :func:`unmask.models.graph_memory.bounded_graphs` it is taken of as many rows at a time as memory holds.

    >>> import torch
    >>> autograd(lambda z, rows=None: (z**2).sum(1), torch.tensor([[1.0, 2.0]]))
    (tensor([5.]), tensor([[2., 4.]]))
    """
    parts, done = list[tuple[Tensor, Tensor]](), 0
    while done < len(z) or not parts:
        most = rows_of_a_graph() or max(1, len(z))
        if not done and len(z) <= most:
            return _whole(objective, z, rows)
        some = torch.arange(done, min(len(z), done + most), device=z.device)
        with use_rows(some, len(z), last=done + len(some) == len(z)):
            parts.append(_whole(objective, z[some], some if rows is None else rows[some]))
        done += len(some)
    values, gradients = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(gradients)


def _whole(objective: Objective, z: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        values = objective(z, rows)
        if not values.requires_grad:
            return values, torch.zeros_like(z)
        (gradient,) = torch.autograd.grad(values.sum(), z, allow_unused=True)
    return values.detach(), torch.zeros_like(z) if gradient is None else gradient
