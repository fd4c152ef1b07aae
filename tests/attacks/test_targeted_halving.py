"""Successive halving over targets: on linear classes, whose optimum for each target is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.attacks.auto_pgd.apgd import likely_targets
from unmask.attacks.auto_pgd.targeted_halving import Round, TargetedHalving
from unmask.attacks.combined.fast import fast
from unmask.losses import targeted_probability_margin
from unmask.threats import Linf
from unmask.types import Output


def ahead(output: Output, labels: Tensor) -> Tensor:
    """How far the target is ahead of the true class, whatever the others do."""
    return (output.logits.gather(1, labels[:, 1:]) - output.logits.gather(1, labels[:, :1])).squeeze(1)


def test_later_rounds_go_on_towards_the_targets_that_came_closest(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    model, x, y, threat = linear(6, "linf", 12)
    aims: list[Tensor] = []

    def noted(output: Output, labels: Tensor) -> Tensor:
        aims.append(labels[:, 1].clone())
        return ahead(output, labels)

    t = trial(model, x, y, threat, answer=False)
    TargetedHalving((Round(5, 4), Round(2, 3, 0.25), Round(1, 2, 0.125)), noted)(t.problem)
    reach = model.lead(x, y) + threat.eps * model.gain(y, "linf")
    best = reach.argsort(1, descending=True)
    searches = [aims[at] for at in (0, 5, 10, 15, 20, 25, 29, 33)]  # a search of k steps has k + 1 values
    assert torch.equal(torch.stack(searches[:5], 1), likely_targets(t.problem, 5))
    pairs = torch.stack(searches[5:7], 1).sort(1).values
    assert torch.equal(pairs, best[:, :2].sort(1).values)
    assert torch.equal(searches[7], best[:, 0])
    assert t.passes.backwards == len(x) * (5 * 4 + 2 * 3 + 1 * 2)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_breaks_what_can_be_broken_of_many_linear_classes(
    trial: Callable[..., Any], linear: Callable[..., Any], norm: str
) -> None:
    model, x, y, threat = linear(6, norm, 24)
    t = trial(model, x, y, threat)
    broken = t.broken(TargetedHalving((Round(5, 20), Round(2, 20, 0.25)))(t.problem))
    assert torch.equal(broken, model.critical(x, y, norm) < threat.eps)


def test_a_round_begins_at_the_best_point_of_the_round_before(trial: Callable[..., Any]) -> None:
    """A peak that one long step from a random point passes over, and short steps from the best point reach."""
    peak = torch.tensor([0.52, 0.47])

    def model(x: Tensor) -> Tensor:
        height = -((x.flatten(1) - peak).square().sum(1)) - 1
        return torch.stack((torch.zeros_like(height), height), 1)

    def off(*rounds: Round) -> float:
        t = trial(model, torch.full((3, 1, 1, 2), 0.5), torch.zeros(3, dtype=torch.long), Linf(0.3))
        return float((TargetedHalving(rounds, ahead)(t.problem).flatten(1) - peak).abs().amax())

    assert off(Round(1, 20), Round(1, 30, 0.05)) < 0.003 < off(Round(1, 20))


def test_two_classes_have_one_target(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    model, x, y, threat = linear(2, "linf", 8)
    t = trial(model, x, y, threat, answer=False)
    TargetedHalving((Round(9, 4), Round(3, 2)))(t.problem)
    assert t.passes.backwards == len(x) * (4 + 2)


def test_the_probability_margin_is_that_of_the_softmax() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    shares = logits.softmax(1)[0]
    value = targeted_probability_margin(Output(logits), torch.tensor([[1, 0]]))
    assert value.item() == pytest.approx(float(shares[0] - shares[1]))


def test_fast_takes_a_tenth_of_the_passes_of_autoattack(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    """AutoAttack takes 1900 gradients and 6900 forward passes of what stands."""
    model, x, y, threat = linear(10, "linf", 8)
    t = trial(model, x, y, threat, answer=False)
    fast()(t.problem)
    assert t.passes.backwards <= 190 * len(x)
    assert t.passes.forwards <= 690 * len(x)
    broken = trial(model, x, y, threat)
    assert torch.equal(broken.broken(fast()(broken.problem)), model.critical(x, y, "linf") < threat.eps)
