"""A trial wires an attack to the judge: what it scores on, what the attack is given, what is counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.attacks.problem import Problem
from unmask.judging import Judge
from unmask.randomness import stream, uniform
from unmask.threats import Linf
from unmask.trials import trial

ZEROS = torch.zeros(64, dtype=torch.long)
GREY = torch.full((64, 1, 2, 2), 0.5)


class Coin(nn.Module):
    """Class 0 with probability ``p``, whatever the image; keeps each number that it draws."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.drawn = p, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        draw = uniform((len(x), 1), x.double())
        self.drawn.append(draw.flatten())
        heads = (draw < self.p).to(x.dtype)
        return torch.cat([heads, 1 - heads], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_scoring_selection_and_search_have_no_draw_in_common() -> None:
    coin, searched = Coin(0.5), list[int]()

    def attack(problem: Problem) -> Tensor:
        for step in range(6):
            problem.broken(torch.arange(64), GREY, step)
        searched.append(len(coin.drawn))
        return GREY

    trial(Judge(coin, Linf(0.1), draws=3), coin, attack, GREY, ZEROS)
    (end,) = searched
    search, scoring, selection = (
        set(torch.cat(draws).tolist()) for draws in (coin.drawn[:end], coin.drawn[end : end + 3], coin.drawn[end + 3 :])
    )
    assert len(scoring) == len(selection) == 3 * 64
    assert len(search) >= 6 * 64
    assert not scoring & selection
    assert not scoring & search
    assert not selection & search


def test_verdicts_are_those_of_the_draws_named_score_and_select() -> None:
    """Another version of the library, or ``unmask verify``, makes the same draws by these names."""
    index, judge = torch.arange(100, 164), Judge(Coin(0.5), Linf(0.1), draws=4)
    found = trial(judge, Coin(0.5), lambda problem: problem.x, GREY, ZEROS, index=index, seed=7)
    for verdict, purpose in ((found.verdict, "score"), (found.selection, "select")):
        expected = judge.verdict(GREY, GREY, ZEROS, stream(7, index, purpose))
        assert torch.equal(verdict.predicted, expected.predicted)


@pytest.mark.parametrize("draws", [2, 4])
def test_examples_that_look_broken_in_a_search_or_a_selection_stand_as_often_as_all(draws: int) -> None:
    """Nothing breaks a coin: of examples chosen by their draws the share that stands is that of heads."""
    n, p = 6000, 0.5
    x, y, coin = torch.full((n, 1, 1, 1), 0.5), torch.zeros(n, dtype=torch.long), Coin(p)
    fallen = torch.zeros(n, dtype=torch.bool)

    def attack(problem: Problem) -> Tensor:
        for step in range(3):
            fallen[problem.broken(torch.arange(n), problem.x, step)] = True
        return problem.x

    found = trial(Judge(coin, Linf(0.1), draws=draws), coin, attack, x, y)
    for chosen in (fallen, found.selection.robust == 0):
        share, count = found.verdict.robust[chosen].mean().item(), int(chosen.sum())
        assert count > 200
        assert share == pytest.approx(p, abs=4 * (p * (1 - p) / (draws * count)) ** 0.5)
