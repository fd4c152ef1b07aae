"""What is done to the image first: a code of its levels, or a blur."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Blur", "Discretize", "sloped"]


class Discretize(nn.Module):
    """Each pixel as ``levels`` bits: (B, C, H, W) in [0, 1] -> (B, C * levels, H, W) of zeros and ones.

    Bit i tells whether the pixel is below (i + 1) / levels. Shattered gradients.

    >>> Discretize(4)(torch.tensor([[[[0.6]]]])).flatten().tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    def __init__(self, levels: int = 20) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(2) < _thresholds(x, self.levels)).to(x.dtype).flatten(1, 2)


def sloped(levels: int = 20, width: float = 2.0) -> Callable[[Tensor], Tensor]:
    """The surrogate of the code: each bit falls linearly over ``width`` levels, centred on its threshold.

    >>> sloped(4, width=2)(torch.tensor([[[[0.5]]]])).flatten().tolist()
    [0.0, 0.5, 1.0, 1.0]
    """

    def surrogate(x: Tensor) -> Tensor:
        return ((_thresholds(x, levels) - x.unsqueeze(2)) * (levels / width) + 0.5).clamp(0, 1).flatten(1, 2)

    return surrogate


def _thresholds(x: Tensor, levels: int) -> Tensor:
    return ((torch.arange(levels, device=x.device, dtype=x.dtype) + 1) / levels).view(1, 1, -1, 1, 1)


class Blur(nn.Module):
    """The mean of each 2x2 pixels, zeros around the image: (B, C, H, W) -> (B, C, H + 2, W + 2).

    The means are H + 1 by W + 1; a row and a column of zeros follow, so that a network can halve an even size.

    >>> Blur()(torch.ones(1, 1, 1, 1))[0, 0].tolist()
    [[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 2, 1, 2)), 2, stride=1)
