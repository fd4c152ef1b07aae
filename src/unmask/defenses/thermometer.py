"""Thermometer encoding: each pixel becomes a row of bits, and the gradient is zero almost everywhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Encode", "Thermometer", "bin_of", "ramp"]


class Encode(nn.Module):
    """Thermometer code of each pixel: (B, C, H, W) in [0, 1] -> (B, C * levels, H, W) of zeros and ones.

    A pixel of bin b = floor(0.99999 * x * levels) has bit l = 1 where b >= l, so that bit 0 is always set.

    >>> Encode(4)(torch.tensor([[[[0.6]]]])).flatten().tolist()
    [1.0, 1.0, 1.0, 0.0]
    """

    def __init__(self, levels: int = 16) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (bin_of(x, self.levels).unsqueeze(2) >= _levels(x, self.levels)).to(x.dtype).flatten(1, 2)


def bin_of(x: Tensor, levels: int) -> Tensor:
    """The bin of each pixel of ``x``, 0 to levels - 1, as a float of the same shape."""
    return (0.99999 * x.clamp(0, 1) * levels).floor()


def ramp(levels: int, width: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The surrogate of the code: each bit rises linearly over ``width`` bins, centred on its threshold.

    Width 1 has a slope in one bit per pixel, as the surrogate of Athalye et al. (ICML 2018), whose bits
    rise half a bin earlier; a wider ramp lets a step see bits that it can reach only later.

    >>> ramp(4, width=2)(torch.tensor([[[[0.5]]]])).flatten().tolist()
    [1.0, 1.0, 0.5, 0.0]
    """

    def surrogate(x: Tensor) -> Tensor:
        return ((x.unsqueeze(2) * levels - _levels(x, levels)) / width + 0.5).clamp(0, 1).flatten(1, 2)

    return surrogate


def _levels(x: Tensor, levels: int) -> Tensor:
    return torch.arange(levels, device=x.device, dtype=x.dtype).view(1, 1, -1, 1, 1)


class Thermometer(nn.Module):
    """A classifier of thermometer codes (Buckman et al., ICLR 2018). Shattered gradients.

    Args:
        classifier: takes (B, C * levels, H, W).
        levels: bits per pixel and channel.
    """

    def __init__(self, classifier: nn.Module, levels: int = 16) -> None:
        super().__init__()
        self.encode = Encode(levels)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encode(x))
        return logits
