"""A model whose robustness is not real, to be audited without a word on what it does:

unmask audit examples/masked_model.py:build --data mnist --eps 0.3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.cases import find_case


class Quantize(nn.Module):
    """Has no gradient."""

    levels = 24

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * self.levels) / self.levels


class Drop(nn.Module):
    """Has another gradient each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < 0.7) / 0.7


class Defense(nn.Module):
    """An undefended network behind both."""

    def __init__(self) -> None:
        super().__init__()
        self.quantize, self.drop, self.net = Quantize(), Drop(), find_case("plain-mnist").load()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.drop(self.quantize(x)))
        return logits


def build() -> nn.Module:
    """What the audit is pointed at."""
    return Defense().eval()
