from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.with_view import WithView
from unmask.attacks.problem import Problem
from unmask.gradients.bpda import bpda
from unmask.judging import Judge
from unmask.randomness import make_keys
from unmask.threats import Linf


class Round(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (8 * x).round() / 8


class Rounded(nn.Module):
    """Right while the rounded mean is below 0.5: an attack of 0.2 must see past the rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = Round()

    def forward(self, x: Tensor) -> Tensor:
        score = self.coarse(x).flatten(1).mean(1) - 0.5
        return torch.stack([-score, score], 1)


X, Y = torch.full((4, 1, 2, 2), 0.4), torch.zeros(4, dtype=torch.long)


def test_a_member_of_an_ensemble_looks_through_its_own_view_and_its_passes_count() -> None:
    model = Rounded().eval()
    judge = Judge(model, Linf(0.2))
    blind = run_attack(pgd(5, restarts=1), model, X, Y, judge=judge)
    seeing = run_attack(
        Ensemble((pgd(5, early_stop=False), WithView(bpda("coarse"), pgd(5)))), model, X, Y, judge=judge
    )
    assert blind.verdict.robust_fraction.mean() > 0
    assert not seeing.verdict.robust_fraction.any()
    assert seeing.passes.backwards > blind.passes.backwards


def test_a_problem_without_views_is_refused() -> None:
    problem = Problem(Rounded(), X, Y, Linf(0.2), make_keys(0, range(4), "test"), lambda rows, x, when: rows < 0)
    with pytest.raises(ValueError, match="no views"):
        WithView(bpda("coarse"), pgd(5))(problem)
