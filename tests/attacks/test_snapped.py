"""Candidates on a grid: where they lie, which point stands for which, and that a search over them finds the optimum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unmask.attacks.aliases import fgsm, pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.snapped import OnGrid, Snapped, snapped
from unmask.attacks.problem import Attack, Problem
from unmask.losses import margin
from unmask.randomness import make_keys
from unmask.threats import L1, L2, Linf, Threat
from unmask.types import Output

LEVELS = 16
BALLS = [Linf(0.15), Linf(0.1719), L2(0.6), L1(2.0)]


def images(count: int = 8, levels: int = LEVELS) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, levels + 1, (count, 1, 4, 4), generator=draw).float() / levels


@pytest.mark.parametrize("threat", BALLS)
def test_points_of_the_ball_become_points_of_the_grid_in_the_ball(threat: Threat) -> None:
    x = images()
    points = threat.project(x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), x)
    found = snapped(points, x, threat, LEVELS)
    assert torch.equal(found, (found * LEVELS).round() / LEVELS)
    assert (threat.distance(found, x) <= threat.eps * (1 + 1e-5)).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_nearest_point_where_it_lies_in_the_ball_and_towards_the_image_where_not() -> None:
    x = torch.tensor([[[[0.5, 0.5]]], [[[0.5, 0.5]]]])
    points = x + torch.tensor([[[[0.9, -0.6]]], [[[2.75, -2.75]]]]) / LEVELS
    found = snapped(points, x, Linf(2.75 / LEVELS), LEVELS)
    assert torch.equal((found - x) * LEVELS, torch.tensor([[[[1.0, -1.0]]], [[[2.0, -2.0]]]]))


def test_a_point_outside_of_the_ball_becomes_the_nearest_of_the_grid() -> None:
    x, points = torch.full((1, 1, 1, 3), 0.5), torch.tensor([[[[0.04, 0.96, 0.5]]]])
    assert torch.equal(snapped(points, x, Linf(0.15), LEVELS) * LEVELS, torch.tensor([[[[1.0, 15.0, 8.0]]]]))


def test_an_edge_of_the_ball_that_is_a_level_is_reached_in_spite_of_rounding() -> None:
    x = images(levels=255)
    found = snapped(Linf(8 / 255).project(x + 1, x), x, Linf(8 / 255), 255)
    assert torch.equal((255 * found).round(), (255 * x + 8).round().clamp(max=255))


def linear(x: Tensor) -> Tensor:
    """Two classes, of which every pixel that is brighter speaks for the second."""
    total = (x - 0.5).flatten(1).sum(1)
    return torch.stack((torch.zeros_like(total), total), 1)


def refusing(x: Tensor) -> Tensor:
    """The first class, by far, where an image is off the grid."""
    off = (x * LEVELS - (x * LEVELS).round()).abs().flatten(1).amax(1, keepdim=True)
    return linear(x) + torch.where(off > 1e-3, torch.tensor([[100.0, 0.0]]), 0.0)


@pytest.mark.parametrize(
    "attack",
    [fgsm(), pgd(20, margin), APGD(20), Ensemble((pgd(10), APGD(10))), Square(200), HopSkipJump(1000, size=0.5)],
    ids=lambda a: str(a)[:12],
)
def test_a_search_over_the_grid_breaks_what_stands_between_its_levels(attack: Attack) -> None:
    x = torch.full((4, 1, 4, 4), 7 / 16)  # a level more in each pixel decides for the second class
    asked: list[Tensor] = []

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        asked.append(x_adv)
        return refusing(x_adv).argmax(1) == 1

    problem = Problem(refusing, x, torch.zeros(4).long(), Linf(0.15), make_keys(0, range(4), "attack"), broken)
    assert not (refusing(attack(problem)).argmax(1) == 1).any()
    asked.clear()
    found = Snapped(LEVELS, attack)(problem)
    assert (refusing(found).argmax(1) == 1).all()
    assert all(torch.equal(one, (one * LEVELS).round() / LEVELS) for one in asked)


def test_a_part_of_the_problem_rounds_in_the_balls_of_its_own_examples() -> None:
    """Ensembles number what is left anew."""
    stands_for, seen = images(4), list[Tensor]()

    def view(x: Tensor) -> Tensor:
        seen.append(x)
        return linear(x)

    problem = Problem(
        view,
        torch.zeros(4, 1, 4, 4),
        torch.zeros(4).long(),
        Linf(0.15),
        make_keys(0, range(4), "attack"),
        lambda rows, x_adv, when: rows < 0,
        candidate=lambda points, rows: stands_for[rows],
    )
    part = problem.subset(torch.tensor([1, 3])).subset(torch.tensor([1]))
    values = part.objective(margin, torch.tensor([0]))(torch.zeros(2, 1, 4, 4), torch.tensor([0, 0]))
    assert torch.equal(seen[-1], stands_for[[3, 3]])
    assert torch.equal(values, margin(Output(linear(stands_for[[3, 3]])), torch.zeros(2).long()))


def test_a_model_that_rounds_its_input_to_the_grid() -> None:
    seen: list[Tensor] = []
    OnGrid(Remembering(seen), 4)(torch.tensor([[[[0.3, 0.9]]]]))
    assert torch.equal(seen[0], torch.tensor([[[[0.25, 1.0]]]]))


class Remembering(torch.nn.Module):
    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return linear(x)


def test_a_grid_without_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 level"):
        Snapped(0, fgsm())
