"""Time on a clock of its own, which each search moves on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.attacks.combined.time_limited import TimeLimited
from unmask.attacks.problem import Problem
from unmask.randomness import make_keys
from unmask.threats import Linf

X = torch.full((4, 1, 1, 2), 0.5)
Y = torch.zeros(4).long()


class Searches:
    """Each takes a second for every example that it gets, and breaks the first of them if it is told to."""

    def __init__(self, breaks: bool) -> None:
        self.now, self.breaks, self.sizes = 0.0, breaks, list[int]()

    def turn(self, number: int) -> Searches:
        assert number == len(self.sizes)
        return self

    def __call__(self, problem: Problem) -> Tensor:
        self.now += len(problem.x)
        self.sizes.append(len(problem.x))
        x_adv = problem.x.clone()
        if self.breaks:
            x_adv[0] += 0.1
            assert problem.is_broken(torch.tensor([0]), x_adv[:1], 0).all()
        return x_adv


def spent(seconds: float, breaks: bool) -> list[int]:
    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        return (x_adv != X[rows]).flatten(1).any(1)

    searches = Searches(breaks)
    problem = Problem(nn.Flatten(), X, Y, Linf(0.2), make_keys(0, range(4), "attack"), broken)
    x_adv = TimeLimited(seconds, searches.turn, lambda: searches.now)(problem)
    assert int((x_adv != X).flatten(1).any(1).sum()) == (len(searches.sizes) if breaks else 0)
    return searches.sizes


def test_it_ends_when_another_turn_would_take_too_long() -> None:
    assert spent(3.0, breaks=False) == [4, 4, 4]
    assert spent(3.9, breaks=False) == [4, 4, 4]


def test_the_first_turn_is_always_made() -> None:
    assert spent(0.1, breaks=False) == [4]


def test_time_is_spent_on_what_stands_until_nothing_does() -> None:
    assert spent(100.0, breaks=True) == [4, 3, 2, 1]
    assert spent(2.0, breaks=True) == [4, 3], "8 seconds: 7 are spent, and another turn like the last is too long"
