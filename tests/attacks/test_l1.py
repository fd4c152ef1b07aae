"""L1-APGD: what a sparse step is, and the search of the paper, point by point."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.auto_pgd.schedules import Halving, Sparser
from unmask.losses import margin
from unmask.randomness import normal, use_keys
from unmask.threats import L1, Threat
from unmask.threats.projections import sparse


def test_a_step_is_spread_over_the_largest_slopes_that_have_room() -> None:
    grad = torch.tensor([[5.0, -4.0, 3.0, 2.0, 1.0, 0.0]])
    everywhere = torch.ones(1, 6, dtype=torch.bool)
    assert sparse(grad, everywhere, torch.tensor([[2.0]])).tolist() == [[0.5, -0.5, 0, 0, 0, 0]]
    torch.testing.assert_close(
        sparse(grad, everywhere, torch.tensor([[2.5]])), torch.tensor([[0.4, -0.4, 0.2, 0, 0, 0]])
    )
    stuck = torch.tensor([[False, True, True, True, False, True]])
    # The first element is moved as well, and does not count; the fifth is moved by no step so narrow.
    assert sparse(grad, stuck, torch.tensor([[2.0]])).tolist() == [[0.5, -0.5, 0.5, 0, 0, 0]]
    # Elements without a slope are never moved: three parts are left of four.
    free = sparse(grad, stuck, torch.tensor([[4.0]]))
    torch.testing.assert_close(free, torch.tensor([[1, -1, 1, 1, 1, 0]]) / 3)


def test_an_element_at_the_edge_of_the_box_does_not_use_up_a_step() -> None:
    at = torch.tensor([[1.0, 0.5, 0.0, 0.5]])
    grad = torch.tensor([[9.0, 2.0, -8.0, 1.0]])
    step = L1(1.0).ascent(grad, at, at, torch.ones(1))
    assert (at + step).clamp(0, 1).tolist() == [[1.0, 1.0, 0.0, 0.5]]
    assert L1(1.0).ascent(grad, None, None, torch.ones(1)).tolist() == [[1, 0, 0, 0]]  # no pixels, no box


@pytest.mark.parametrize("length", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("width", [1.0, 1.5, 4.0])
def test_the_optimum_of_a_linear_function_in_ball_and_box_is_a_fixed_point(length: float, width: float) -> None:
    """A fractional knapsack: elements, the steepest first, are moved to the edge until eps is used up."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 30, generator=generator, dtype=torch.float64)
    slope = torch.randn(20, 30, generator=generator, dtype=torch.float64)
    threat, optimum = L1(1.7), knapsack(slope, x, 1.7)
    step = length * threat.ascent(slope, optimum, x, torch.full((20,), width))
    torch.testing.assert_close(threat.project(optimum + step, x), optimum, rtol=0, atol=1e-9)


def knapsack(slope: Tensor, x: Tensor, eps: float) -> Tensor:
    room = torch.where(slope > 0, 1 - x, x)
    order = slope.abs().argsort(1, descending=True)
    sorted_room = room.gather(1, order)
    used = torch.minimum((eps - (sorted_room.cumsum(1) - sorted_room)).clamp_min(0), sorted_room)
    return x + torch.zeros_like(x).scatter(1, order, used) * slope.sign()


def paper(
    f: Callable[[Tensor], tuple[float, Tensor]], x: Tensor, start: Tensor, eps: float, steps: int
) -> list[Tensor]:
    """Algorithm 1 of Croce & Hein (ICML 2021) for one example (1, ...), phase by phase: all points it evaluates."""
    evaluated, point, wide = [], start, 3 * steps // 10
    for scale, count in ((3, wide), (2, wide), (1, steps - 2 * wide)):
        radius, gap = scale * eps, max(1, int(0.04 * count))
        point = L1(radius).project(point, x)
        best, (best_value, best_gradient) = point, f(point)
        gradient, eta, before = best_gradient, radius, int((point != x).sum())
        k = min(before / 1.5, x.numel() / 5)
        evaluated.append(point)
        for i in range(1, count + 1):
            if i > 1 and (i - 1) % gap == 0:
                now = int((best != x).sum())
                k = now / 1.5
                if now < 0.95 * before:
                    eta, point, gradient = radius, best, best_gradient
                else:
                    eta = max(eta / 1.5, radius / 10)
                before = now
            k = max(k, 1)
            largest = gradient.abs().flatten().argsort(descending=True)
            step = torch.zeros(x.numel(), dtype=x.dtype)
            for place, element in enumerate(largest[: math.ceil(k)]):
                step[element] = gradient.flatten()[element].sign() * min(1, k - place) / k
            point = L1(radius).project(point + eta * step.view_as(x), x)
            value, gradient = f(point)
            evaluated.append(point)
            if value > best_value:
                best, best_value, best_gradient = point, value, gradient
        point = best
    return evaluated


@pytest.mark.parametrize("steps", [9, 60])
def test_follows_the_paper_where_no_element_comes_to_an_edge(trial: Callable[..., Any], steps: int) -> None:
    """On a rugged function, so that some checkpoints widen the step again and others shorten it."""
    generator = torch.Generator().manual_seed(3)
    x = 0.45 + 0.1 * torch.rand(3, 1, 4, 5, generator=generator, dtype=torch.float64)
    slope = torch.randn(20, generator=generator, dtype=torch.float64)
    seen: list[Tensor] = []

    def view(z: Tensor) -> Tensor:
        seen.append(z[:3].detach().clone())
        flat = z.flatten(1)
        height = flat @ slope / 4 - (40 * flat).sin().square().sum(1) / 40 - 9
        return torch.stack((torch.zeros_like(height), height), 1)

    t = trial(view, x, torch.zeros(3, dtype=torch.long), L1(0.12))
    x_adv = APGD(steps, margin)(t.problem)
    assert t.passes.backwards == 3 * steps
    with use_keys(t.problem.keys.fold_in(0).fold_in("start")):
        start = L1(0.36).project(x + normal(x.shape, x), x)

    def f(z: Tensor) -> tuple[float, Tensor]:
        z = z.detach().requires_grad_()
        value = view(z)[0, 1]
        return value.item(), torch.autograd.grad(value, z)[0]

    walked = torch.stack(seen, 1)
    for i in range(3):
        row = slice(i, i + 1)
        expected = torch.cat(paper(f, x[row], start[row], 0.12, steps))
        torch.testing.assert_close(walked[i], expected, rtol=0, atol=1e-9)
        last = expected[-(steps - 2 * (3 * steps // 10) + 1) :]  # only points of the ball itself are candidates
        assert f(x_adv[row])[0] == pytest.approx(max(f(z[None])[0] for z in last), abs=1e-6)


def test_a_schedule_is_an_argument(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    """Each of three balls has a last point, of which the value alone is asked; each schedule finds the optimum."""
    model, x, y, threat = linear(2, "l1")
    best = model.lead(x, y).amax(1) + threat.eps * model.gain(y, "l1").amax(1)
    for schedule, points in ((None, 33), (Sparser(), 33), (Halving(), 31)):
        t = trial(model, x, y, threat, answer=False)
        x_adv = APGD(30, schedule=schedule)(t.problem)
        assert t.passes.forwards == points * len(x)
        assert t.passes.backwards == 30 * len(x)
        torch.testing.assert_close(model.lead(x_adv, y).amax(1), best, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("attack", [APGD(40, margin), pgd(100, margin, rel_step_size=0.1)], ids=["apgd", "pgd"])
def test_reaches_the_optimum_in_ball_and_box(trial: Callable[..., Any], attack: Any) -> None:
    """Of two linear classes on images most of which are at an edge of the box somewhere."""
    generator = torch.Generator().manual_seed(2)
    x = (1.6 * torch.rand(40, 1, 8, 8, generator=generator) - 0.3).clamp(0, 1)
    slope = torch.randn(64, generator=generator)
    threat: Threat = L1(2.0)

    def model(z: Tensor) -> Tensor:
        height = (z.flatten(1) - 0.5) @ slope - 9
        return torch.stack((torch.zeros_like(height), height), 1)

    t = trial(model, x, torch.zeros(40, dtype=torch.long), threat, answer=False)
    best = knapsack(slope.expand(40, 64), x.flatten(1), 2.0) @ slope
    reached = attack(t.problem).flatten(1) @ slope
    clean = x.flatten(1) @ slope
    assert ((reached - clean) / (best - clean)).min() > 0.99
