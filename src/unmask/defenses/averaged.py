"""An ensemble of defenses: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["Averaged"]


class Averaged(nn.Module):
    """The logarithm of the mean of the members' probabilities: (B, C, H, W) -> (B, K).

    Guo et al. (ICLR 2018) average over their transformations in this way. Members may share parts.

    Raises UnmaskError for no members.

    >>> Averaged([nn.Flatten(), nn.Sequential(nn.Flatten(), nn.ReLU())])(torch.zeros(3, 1, 1, 2)).exp()[0]
    tensor([0.5000, 0.5000])
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise UnmaskError("an average needs at least one member")

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.stack([member(x).log_softmax(1) for member in self.members])
        return scores.logsumexp(0) - math.log(len(self.members))
