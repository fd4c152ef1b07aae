from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.with_view import WithView
from unmask.attacks.problem import Problem
from unmask.attacks.source import source
from unmask.gradients.bpda import bpda
from unmask.judging import Judge
from unmask.randomness import make_keys
from unmask.threats import Linf
from unmask.types import InvalidModelOutput


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
HALF_FAR = torch.cat((X[:2], torch.full((2, 1, 2, 2), 0.2)))


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


class Fails(nn.Module):
    """A view that works for a number of passes."""

    def __init__(self, model: nn.Module, passes: int, error: Exception) -> None:
        super().__init__()
        self.model, self.left, self.error = model, passes, error

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        answer: Tensor = bpda("coarse")(self.model)(x)
        return answer


@pytest.mark.parametrize(("passes", "left"), [(0, 1.0), (20, 0.0)])
def test_a_view_with_a_name_that_fails_ends_its_own_search_and_what_that_has_broken_counts(
    passes: int, left: float
) -> None:
    attack = WithView(
        lambda model: Fails(model, passes, IndexError("row 7\nof 6")),
        pgd(50, rel_step_size=0.25, restarts=9),
        "the view",
    )
    result = run_attack(Ensemble((attack,)), Rounded().eval(), HALF_FAR, Y, Linf(0.2))
    assert result.failures == {"the view": "IndexError: row 7"}
    assert result.verdict.robust_fraction.tolist() == [left, left, 1.0, 1.0], "the last two are out of reach"


def test_after_a_failure_the_other_attacks_go_on() -> None:
    failing = WithView(lambda model: Fails(model, 0, IndexError()), pgd(5), "the view")
    result = run_attack(Ensemble((failing, WithView(bpda("coarse"), pgd(5)))), Rounded().eval(), X, Y, Linf(0.2))
    assert not result.verdict.robust_fraction.any()


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("", IndexError("row 7"), "row 7"),
        ("the view", RuntimeError("CUDA out of memory"), "out of memory"),
        ("the view", InvalidModelOutput("NaN"), "NaN"),
    ],
)
def test_other_failures_are_raised(name: str, error: Exception, match: str) -> None:
    with pytest.raises(type(error), match=match):
        run_attack(WithView(lambda model: Fails(model, 1, error), pgd(5), name), Rounded(), X, Y, Linf(0.2))


def test_the_name_is_no_part_of_the_code_of_an_attack() -> None:
    view = bpda("coarse")
    assert source(WithView(view, pgd(5), "the view"), {view: "view"}) == source(WithView(view, pgd(5)), {view: "view"})
