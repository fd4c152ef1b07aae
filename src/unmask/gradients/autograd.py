"""The gradient as the model itself gives it."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.types import Objective

__all__ = ["autograd"]


def autograd(objective: Objective, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Values (B,) and gradient (B, ...) of ``objective`` at ``z`` by backpropagation.

    Where the objective does not depend on ``z`` at all, the gradient is zero.

    >>> import torch
    >>> autograd(lambda z, rows=None: (z**2).sum(1), torch.tensor([[1.0, 2.0]]))
    (tensor([5.]), tensor([[2., 4.]]))
    """
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        values = objective(z, rows)
        if not values.requires_grad:
            return values, torch.zeros_like(z)
        (gradient,) = torch.autograd.grad(values.sum(), z, allow_unused=True)
    return values.detach(), torch.zeros_like(z) if gradient is None else gradient
