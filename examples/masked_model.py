"""A model whose robustness is not real, to be audited without a word on what it does:

unmask audit examples/masked_model.py:build --data mnist --eps 0.3
unmask audit examples/masked_model.py:digits --data digits --eps 0.15
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

    def __init__(self, kept: float) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < self.kept) / self.kept


class Defense(nn.Module):
    """An undefended network, that of a case, behind both."""

    def __init__(self, case: str, kept: float) -> None:
        super().__init__()
        self.quantize, self.drop, self.net = Quantize(), Drop(kept), find_case(case).load()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.drop(self.quantize(x)))
        return logits


def build() -> nn.Module:
    """What the audit is pointed at."""
    return Defense("plain-mnist", kept=0.7).eval()


def digits() -> nn.Module:
    """The same for digits, which come with scikit-learn; 64 pixels can spare fewer."""
    return Defense("plain-digits", kept=0.95).eval()
