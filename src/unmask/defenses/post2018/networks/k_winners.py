"""k-winners-take-all: of all units of a layer, the k largest keep their values and the others become 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["KWinners", "soft_winners", "with_winners"]


class KWinners(nn.Module):
    """The largest ``fraction`` of an image's units keep their values, the others become 0: (B, ...) -> (B, ...).

    Xiao et al. (ICLR 2020). Of n units, k = floor(fraction * n) win, at least one; units that tie with the smallest
    winner win too, as in the authors' code. The gradient is that of the winners' values; who wins counts as constant.

    >>> KWinners(0.5)(torch.tensor([[3.0, -1.0, 2.0, 1.0]]))
    tensor([[3., -0., 2., 0.]])
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise UnmaskError(f"the fraction of winners is above 0 and at most 1, not {fraction}")
        self.fraction = fraction

    def threshold(self, h: Tensor) -> Tensor:
        """The smallest winner's value (B, 1, ...), a constant in the backward pass."""
        flat = h.detach().flatten(1)
        winners = flat.topk(max(1, int(self.fraction * flat.shape[1])), dim=1, sorted=False).values
        return winners.amin(1).view(-1, *[1] * (h.ndim - 1))

    def forward(self, h: Tensor) -> Tensor:
        return h * (h >= self.threshold(h))


def soft_winners(compete: KWinners, width: float) -> Callable[[Tensor], Tensor]:
    """The surrogate of ``compete``: a unit's value times a sigmoid of its distance from the threshold.

    Args:
        compete: whose threshold it has.
        width: of the sigmoid, in standard deviations of an image's units; at 0 it is the step.

    >>> soft_winners(KWinners(0.5), 1e-6)(torch.tensor([[3.0, -1.0, 2.0, 1.0]])).round()[0, 0]
    tensor(3.)
    """

    def surrogate(h: Tensor) -> Tensor:
        spread = h.detach().flatten(1).std(1).view(-1, *[1] * (h.ndim - 1))
        return h * ((h - compete.threshold(h)) / (width * spread + torch.finfo(h.dtype).tiny)).sigmoid()

    return surrogate


def with_winners(net: nn.Sequential, fraction: float) -> nn.Sequential:
    """``net`` with ``KWinners`` in place of every ReLU among its layers. Shattered gradients.

    Any change of the image changes who wins in the layers, so that the output jumps; the gradient is that of the piece
    on which the image lies, and pieces are small.

    >>> with_winners(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), 0.5)[1].fraction
    0.5
    """
    return nn.Sequential(*(KWinners(fraction) if isinstance(layer, nn.ReLU) else layer for layer in net))
