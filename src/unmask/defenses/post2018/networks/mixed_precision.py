"""EMPIR: networks of full and of low precision vote on the class."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unmask.errors import UnmaskError

__all__ = ["MixedPrecision", "RoundedActivation", "RoundedWeight", "Vote", "low_precision_net"]


def _rounded(h: Tensor, bits: int) -> Tensor:
    """Numbers in [0, 1] to the nearest of 2^bits levels; the backward pass is the identity (straight through)."""
    steps = float(2**bits - 1)
    return h + ((h * steps).round() / steps - h).detach()


class RoundedActivation(nn.Module):
    """Activations clipped to [0, 1] and rounded to 2^bits levels (DoReFa: Zhou et al., 2016); any shape.

    >>> RoundedActivation(1)(torch.tensor([-1.0, 0.4, 0.6, 3.0])).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, h: Tensor) -> Tensor:
        return _rounded(h.clamp(0, 1), self.bits)


class RoundedWeight(nn.Module):
    """A weight as one of 2^bits numbers in [-1, 1] (DoReFa: Zhou et al., 2016); any shape.

    tanh(w) / max |tanh(w)|, moved to [0, 1], is rounded there and moved back.

    >>> RoundedWeight(1)(torch.tensor([-2.0, 0.1, 1.0])).tolist()
    [-1.0, 1.0, 1.0]
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, w: Tensor) -> Tensor:
        t = w.tanh()
        return 2 * _rounded(t / (2 * t.abs().max()) + 0.5, self.bits) - 1


def low_precision_net(channels: int, size: int, weight_bits: int, activation_bits: int) -> nn.Sequential:
    """Four 3x3 convolutions, two of stride 2, and two linear layers: (B, channels, size, size) -> (B, 10).

    Weights and activations are rounded, but for the first and the last layer's weights, as in DoReFa. Batch norm
    gives the activations the scale of the levels.

    >>> low_precision_net(1, 28, 2, 4)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    left = -(-size // 4)
    weighted: list[nn.Module] = [
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False),
        nn.Linear(32 * left * left, 64, bias=False),
    ]
    for layer in weighted[1:]:
        parametrize.register_parametrization(layer, "weight", RoundedWeight(weight_bits))
    layers: list[nn.Module] = []
    for layer in weighted[:-1]:
        layers += [layer, nn.BatchNorm2d(layer.out_channels), RoundedActivation(activation_bits)]  # type: ignore[arg-type]
    layers += [nn.Flatten(), weighted[-1], nn.BatchNorm1d(64), RoundedActivation(activation_bits), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


class Vote(nn.Module):
    """Logits (B, members, K) to the number of members (B, K) for which each class is the largest.

    >>> Vote()(torch.tensor([[[3.0, 1.0], [0.0, 9.0], [2.0, 1.0]]]))
    tensor([[2., 1.]])
    """

    def forward(self, logits: Tensor) -> Tensor:
        return F.one_hot(logits.argmax(2), logits.shape[2]).to(logits.dtype).sum(1)


class MixedPrecision(nn.Module):
    """The majority of networks of several precisions (EMPIR: Sen et al., ICLR 2020). Shattered gradients.

    The answer (B, K) is the number of votes of each class, which has no gradient; a tie is won by the class of the
    lowest number.

    Raises UnmaskError for no members.

    >>> MixedPrecision([nn.Flatten(), nn.Flatten()])(torch.tensor([[[[0.2, 0.7]]]]))
    tensor([[0., 2.]])
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise UnmaskError("a vote needs at least one member", "give MixedPrecision some networks")
        self.vote = Vote()

    def logits(self, x: Tensor) -> Tensor:
        """Of each member: (B, members, K)."""
        return torch.stack([member(x) for member in self.members], 1)

    def forward(self, x: Tensor) -> Tensor:
        votes: Tensor = self.vote(self.logits(x))
        return votes
