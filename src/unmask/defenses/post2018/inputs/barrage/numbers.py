"""Parameters of transformations from uniform numbers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["between", "per_channel", "whole"]


def between(u: Tensor, low: float, high: float) -> Tensor:
    """Uniform in [low, high), of uniform numbers in [0, 1)."""
    return low + (high - low) * u


def whole(u: Tensor, low: int, high: int) -> Tensor:
    """Uniform over the integers from low to high, both included."""
    return (low + ((high - low + 1) * u).floor()).clamp_max(high)


def per_channel(values: Tensor, coin: Tensor) -> Tensor:
    """Of each image the three ``values`` (B, 3), or the first of them for all channels if the coin is below 0.5.

    >>> per_channel(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0.2])).flatten()
    tensor([1., 1., 1.])
    """
    return torch.where(coin[:, None] < 0.5, values[:, :1].expand_as(values), values)[:, :, None, None]
