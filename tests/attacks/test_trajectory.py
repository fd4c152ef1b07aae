"""The way of an attack is kept evenly, is what was tried, and changes nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import fgsm, pgd
from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
from unmask.attacks.black_box.random_search import RandomSearch
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.with_view import WithView
from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Steepest
from unmask.attacks.problem import Attack
from unmask.attacks.trajectory import TrajectoryRecorder
from unmask.evaluation.attack_registry import ATTACKS
from unmask.gradients.autograd import autograd
from unmask.gradients.straight_through import straight_through
from unmask.threats import L1, L2, Linf


def noted(count: int, most: int = 24) -> list[int]:
    trail = TrajectoryRecorder([0], most)
    for step in range(count):
        trail.record(torch.tensor([0]), torch.full((1, 1, 1, 1), float(step)), nn.Flatten())
    stops = trail.of(0)
    assert [float(stop.x_adv) + 1 for stop in stops] == [stop.step for stop in stops]
    return [stop.step for stop in stops]


@pytest.mark.parametrize("count", [0, 1, 2, 24, 25, 26, 47, 48, 49, 100, 1000, 1025])
def test_stops_are_spread_evenly_from_the_first_candidate_to_the_last(count: int) -> None:
    steps = noted(count)
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert steps[:1] == [1][:count]
    assert steps[-1:] == [count][:count]
    assert len(set(gaps[:-1])) <= 1
    assert not gaps or gaps[-1] <= gaps[0]
    assert min(count, 12) <= len(steps) <= 25


def test_a_stop_is_not_what_becomes_of_the_tensor_later() -> None:
    trail, x = TrajectoryRecorder([0]), torch.zeros(1, 1, 1, 1)
    trail.record(torch.tensor([0]), x, nn.Flatten())
    x += 1
    assert float(trail.of(0)[0].x_adv) == 0


def test_rows_are_those_of_the_batch_also_in_a_part_of_a_problem(trial: Any) -> None:
    one = trial(nn.Flatten(), torch.full((4, 1, 1, 2), 0.5), torch.zeros(4, dtype=torch.long), Linf(0.1), answer=False)
    trail = TrajectoryRecorder([3])
    problem = (
        replace(one.problem, on_candidate=trail.record).subset(torch.tensor([1, 2, 3])).subset(torch.tensor([0, 2]))
    )
    x_adv = RandomSearch(5)(problem)
    assert [stop.step for stop in trail.of(3)] == [1, 2, 3, 4, 5]
    assert any(torch.equal(stop.x_adv, x_adv[1]) for stop in trail.of(3))


def test_stops_are_the_points_of_the_walk(trial: Any) -> None:
    """On a linear model every step of a quarter of eps goes the same way, from the image to the corner."""
    x = torch.tensor([[[[0.6, 0.4]]], [[[0.7, 0.2]]]])
    one = trial(nn.Flatten(), x, torch.zeros(2, dtype=torch.long), Linf(0.08), answer=False)
    trail = TrajectoryRecorder([1])
    GradientAttack(4, optimizer=Steepest(0.25), random_start=False)(replace(one.problem, on_candidate=trail.record))
    expected = [x[1] + 0.02 * step * torch.tensor([-1.0, 1.0]) for step in range(5)]
    for stop, point in zip(trail.of(1), expected, strict=True):
        torch.testing.assert_close(stop.x_adv, point)


def test_an_ensemble_notes_what_its_members_try_with_the_view_of_each(trial: Any) -> None:
    one = trial(nn.Flatten(), torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.long), Linf(0.1), answer=False)
    other = one.problem.with_view(nn.Flatten()).view
    trail = TrajectoryRecorder([0])
    problem = replace(one.problem, on_candidate=trail.record, views=lambda view: other)
    Ensemble((fgsm(), WithView(straight_through, pgd(3)), Square(4)))(problem)
    assert [stop.view is other for stop in trail.of(0)] == [False] * 2 + [True] * 4 + [False] * 4


WAYS: dict[str, tuple[Attack, Any]] = {
    **{name: (setting.make(12, 2, autograd), Linf(0.1)) for name, setting in ATTACKS.items()},
    "hop-skip-jump": (HopSkipJump(200), Linf(0.1)),
    "square-l2": (Square(25), L2(0.5)),
    "random-l1": (RandomSearch(20, batch=100), L1(3.0)),
    "through": (WithView(straight_through, pgd(5)), Linf(0.1)),
}


@pytest.mark.parametrize("name", WAYS)
def test_nothing_changes_when_an_attack_is_followed(linear: Any, name: str) -> None:
    attack, threat = WAYS[name]
    model, x, y, _ = linear(5, "linf", n=12)
    read = nn.Linear(64, 5).requires_grad_(False)
    read.weight.copy_(model.weight)
    read.bias.copy_(model.bias)
    module = nn.Sequential(nn.Flatten(), read).eval()
    alone, seen = (run_attack(attack, module, x, y, threat, record_trajectories=follow) for follow in (0, 3))
    assert torch.equal(alone.x_adv, seen.x_adv)
    assert torch.equal(alone.verdict.robust_fraction, seen.verdict.robust_fraction)
    assert alone.trajectory is None
    assert seen.trajectory is not None
    assert seen.trajectory.rows == (0, 1, 2)
    stops = [stop for row in seen.trajectory.rows for stop in seen.trajectory.of(row)]
    assert stops
    stops[0].view(x)
    assert alone.passes == seen.passes
