from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unmask.attacks.aliases import fgsm
from unmask.attacks.black_box.transfer import Transfer
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.problem import Problem
from unmask.losses import margin
from unmask.models.model_wrappers import batch_invariant
from unmask.randomness import make_keys, normal
from unmask.threats import Linf
from unmask.types import Output


def halves(linear: Callable[..., Any]) -> tuple[Any, ...]:
    """A linear case, one-step attacks that know the left or the right half of the weights, and their gains."""
    model, x, y, threat = linear(2, "linf")
    masks = [(torch.arange(64) % 8 < 4).float(), (torch.arange(64) % 8 >= 4).float()]
    masks[1][::3] = 0  # so that the halves gain differently
    attacks, gains = [], []
    for mask in masks:
        source, _, _, _ = linear(2, "linf")
        source.weight = model.weight * mask
        source.bias = torch.zeros(2)
        attacks.append(Transfer(batch_invariant(source), replace(fgsm(margin), early_stop=False)))
        toward = mask * (model.weight[1 - y] - model.weight[y])
        gains.append(toward.abs().sum(1))
    lead = model.lead(x, y).amax(1)
    radius = float((-lead).median() / gains[0][0])
    return model, x, y, replace(threat, eps=radius), attacks, [lead + radius * gain for gain in gains]


def test_broken_is_the_union_and_the_rest_the_larger_margin(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    model, x, y, threat, attacks, reached = halves(linear)
    each = [reach > 0 for reach in reached]
    assert 0 < each[0].sum() < each[1].sum() < len(x) or 0 < each[1].sum() < each[0].sum() < len(x)
    for order in ([0, 1], [1, 0]):
        t = trial(model, x, y, threat)
        x_adv = Ensemble(tuple(attacks[i] for i in order))(t.problem)
        broken = t.broken(x_adv)
        assert torch.equal(broken, each[0] | each[1])
        first = each[order[0]]
        lead = model.lead(x_adv, y).amax(1)
        torch.testing.assert_close(lead[first], reached[order[0]][first], rtol=0, atol=1e-4)
        best = torch.maximum(*reached)
        torch.testing.assert_close(lead[~broken], best[~broken], rtol=0, atol=1e-4)


def test_the_broken_are_not_attacked_again(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    """Attacks that ask the judge themselves, or do not; the last examples broken end the whole."""
    model, x, _, threat = linear(2, "linf", 8)
    marked = x + torch.arange(8).view(-1, 1, 1, 1) * 1e-3
    given: list[list[int]] = []

    def finder(which: list[int], asks: bool) -> Callable[[Problem], Tensor]:
        """Knows how to break some examples: their images turned to the other side."""

        def attack(problem: Problem) -> Tensor:
            numbers = [int(i) for i in (problem.x[:, None] - marked[None]).flatten(2).abs().amax(2).argmin(1)]
            given.append(numbers)
            known = torch.tensor([number in which for number in numbers])
            x_adv = torch.where(known.view(-1, 1, 1, 1), 1 - problem.x, problem.x)
            if asks:
                problem.is_broken(torch.arange(len(numbers)), x_adv, 1)
            return x_adv

        return attack

    t = trial(model, marked, model(marked).argmax(1), replace(threat, eps=1.0))
    attacks = (finder([1, 3], True), finder([3, 4, 5], False), finder([0, 2, 6, 7], True), finder([0], True))
    x_adv = Ensemble(attacks)(t.problem)
    assert given == [list(range(8)), [0, 2, 4, 5, 6, 7], [0, 2, 6, 7]]
    torch.testing.assert_close(x_adv, 1 - marked)
    verdicts = [int(row) for rows, _, yes in t.asked for row in rows[yes]]
    assert sorted(verdicts) == list(range(8))  # a broken one is not shown to the judge again


def test_every_question_to_the_judge_has_a_draw_of_its_own(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    model, x, y, threat = linear(2, "linf", 3)
    moments: list[int] = []

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        moments.append(when)
        return torch.zeros(len(rows), dtype=torch.bool)

    def asks(problem: Problem) -> Tensor:
        for when in (1, 2, 3):
            problem.is_broken(torch.arange(3), problem.x, when)
        return problem.x

    problem = replace(trial(model, x, 1 - y, threat).problem, is_broken=broken)
    Ensemble((asks, asks, Ensemble((asks, asks))))(problem)
    assert len(moments) == 4 * 3 + 3 + 2
    assert len(set(moments)) == len(moments)


def test_of_a_random_model_the_better_candidate_is_kept_and_not_the_luckier() -> None:
    """The first of two candidates leads by half a standard deviation of a single draw."""

    def noisy(x: Tensor) -> Tensor:
        lead = x.flatten(1).mean(1) + normal((len(x),), like=x) - 100.0
        return torch.stack((torch.zeros_like(lead), lead), 1)

    x, y = torch.zeros(256, 1, 1, 1), torch.zeros(256, dtype=torch.long)
    keys = make_keys(0, range(256), "attack")
    problem = Problem(noisy, x, y, Linf(1.0), keys, lambda rows, x_adv, when: torch.zeros_like(rows).bool())
    better, worse = (lambda problem, level=level: torch.full_like(problem.x, level) for level in (0.5, 0.0))
    kept = [float(Ensemble((better, worse), draws)(problem).mean()) for draws in (1, 64)]
    assert kept[0] < 0.4  # chosen by one draw: right in 64 % of the cases
    assert kept[1] > 0.48


def test_of_a_random_detector_the_candidate_that_succeeds_in_most_draws_is_kept() -> None:
    """Bright images are accepted by little in three of four draws; dark ones are right, by little, in all."""

    def detects(x: Tensor) -> Output:
        bright = x.flatten(1).mean(1)
        lead = torch.where(bright > 0.5, 5.0, -0.01)
        refused = (bright > 0.5) & (normal((len(x),), like=x) > 0.67)
        return Output(torch.stack((torch.zeros_like(lead), lead), 1), torch.where(refused, 9.0, -0.01))

    x, y = torch.zeros(64, 1, 1, 1), torch.zeros(64, dtype=torch.long)
    keys = make_keys(0, range(64), "attack")
    problem = Problem(detects, x, y, Linf(1.0), keys, lambda rows, x_adv, when: torch.zeros_like(rows).bool())
    bright, dark = (lambda problem, level=level: torch.full_like(problem.x, level) for level in (1.0, 0.0))
    for attacks in ((bright, dark), (dark, bright)):
        assert Ensemble(attacks, 16)(problem).mean() > 0.95
