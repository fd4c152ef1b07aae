from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.losses import margin, targeted_margin
from unmask.randomness import use_keys
from unmask.threats import L2, Linf, Threat
from unmask.types import Output


def paper(
    f: Callable[[Tensor], tuple[float, Tensor]], x: Tensor, start: Tensor, threat: Threat, steps: int
) -> list[Tensor]:
    """Algorithm 1 of the paper, for one example (1, ...), line by line: all points that it evaluates."""
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [math.ceil(round(q * steps, 6)) for q in p]
    step = lambda z, g, size: threat.project(z + size * threat.ascent(g), x)  # noqa: E731
    eta = 2 * float(threat.radius(x))
    value, gradient = f(start)
    evaluated, values = [start], [value]
    best, best_value, best_gradient = start, value, gradient
    point, previous = start, start
    etas, bests = {0: eta}, {0: best_value}
    for k in range(steps):
        z = step(point, gradient, eta)
        if k > 0:
            z = threat.project(point + 0.75 * (z - point) + 0.25 * (point - previous), x)
        point, previous = z, point
        value, gradient = f(point)
        evaluated.append(point)
        values.append(value)
        if value > best_value:
            best, best_value, best_gradient = point, value, gradient
        if k + 1 in w and k + 1 < steps:
            j = w.index(k + 1)
            rises = sum(values[i + 1] > values[i] for i in range(w[j - 1], w[j]))
            stuck = j > 1 and etas[w[j - 1]] == eta and bests[w[j - 1]] == best_value
            etas[k + 1], bests[k + 1] = eta, best_value
            if rises < 0.75 * (w[j] - w[j - 1]) or stuck:
                eta /= 2
                point, gradient = best, best_gradient
                values[-1] = best_value
    return evaluated


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.5)], ids=str)
@pytest.mark.parametrize("steps", [25, 100])
def test_follows_the_paper_step_by_step(trial: Callable[..., Any], threat: Threat, steps: int) -> None:
    """On a rugged function, so that some checkpoints halve and others do not."""
    generator = torch.Generator().manual_seed(3)
    x = 0.3 + 0.4 * torch.rand(3, 1, 2, 3, generator=generator, dtype=torch.float64)
    slope = torch.randn(6, generator=generator, dtype=torch.float64)
    seen: list[Tensor] = []

    def view(z: Tensor) -> Tensor:
        seen.append(z[:3].detach().clone())
        flat = z.flatten(1)
        height = flat @ slope / 4 - (12 * flat).sin().square().sum(1) / 4 - 9
        return torch.stack((torch.zeros_like(height), height), 1)

    t = trial(view, x, torch.zeros(3, dtype=torch.long), threat)
    x_adv = APGD(steps, margin)(t.problem)
    with use_keys(t.problem.keys.fold_in(0).fold_in("start")):
        start = threat.start(x)

    def f(z: Tensor) -> tuple[float, Tensor]:
        z = z.detach().requires_grad_()
        value = view(z)[0, 1]
        return value.item(), torch.autograd.grad(value, z)[0]

    walked = torch.stack(seen, 1)  # (3, steps + 1, ...)
    for i in range(3):
        row = slice(i, i + 1)
        expected = torch.cat(paper(f, x[row], start[row], threat, steps))
        torch.testing.assert_close(walked[i], expected, rtol=0, atol=1e-9)
        highest = max(f(z[None])[0] for z in expected)
        assert f(x_adv[row])[0] == pytest.approx(highest, abs=1e-6)


def test_closes_in_on_a_peak_far_nearer_than_its_first_steps(trial: Callable[..., Any]) -> None:
    """Steps of 2 eps = 0.6 overshoot a peak 0.02 away from the image; halving finds it all the same."""
    peak = torch.tensor([0.52, 0.47])

    def model(x: Tensor) -> Tensor:
        height = -((x.flatten(1) - peak).square().sum(1)) - 1
        return torch.stack((torch.zeros_like(height), height), 1)

    t = trial(model, torch.full((3, 1, 1, 2), 0.5), torch.zeros(3, dtype=torch.long), Linf(0.3))
    off = (APGD(100, margin)(t.problem).flatten(1) - peak).abs().amax()
    assert off < 0.3 / 100


def ahead(output: Output, labels: Tensor) -> Tensor:
    """How far the target is ahead of the true class, whatever the others do."""
    return (output.logits.gather(1, labels[:, 1:]) - output.logits.gather(1, labels[:, :1])).squeeze(1)


def test_targets_are_the_likely_wrong_classes_in_turn(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    """A first step of 2 eps ends in the corner of the ball that lies towards the target: along W_t - W_y."""
    model, x, y, threat = linear(5, "linf", 12)
    order = model(x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
    seen: list[Tensor] = []

    def view(z: Tensor):
        seen.append(z[:12].detach().clone())
        return model(z)

    t = trial(model, x, y, threat, view=view, answer=False)
    APGD(1, ahead, targets=99)(t.problem)  # there are 4
    assert t.passes.backwards == 4 * len(x)
    assert len(seen) == 1 + 4 * 2
    for k, end in enumerate(seen[2::2]):
        toward = (model.weight[order[:, k]] - model.weight[y]).view_as(x)
        torch.testing.assert_close(end, x + threat.eps * toward.sign(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_all_targets_find_the_true_optimum_of_many_linear_classes(
    trial: Callable[..., Any], linear: Callable[..., Any], norm: str
) -> None:
    """Where a single search may end at the second best class, the best over all targets may not."""
    model, x, y, threat = linear(6, norm, 24)
    best = (model.lead(x, y) + threat.eps * model.gain(y, norm)).amax(1)

    t = trial(model, x, y, threat)
    x_adv = APGD(20, ahead, targets=5, early_stop=False)(t.problem)
    torch.testing.assert_close(model.lead(x_adv, y).amax(1), best, rtol=1e-3, atol=1e-3)
    broken = t.broken(APGD(20, targeted_margin, targets=5)(t.problem))
    assert torch.equal(broken, model.critical(x, y, norm) < threat.eps)


def test_restarts_end_when_all_are_broken_and_differ_otherwise(
    trial: Callable[..., Any], linear: Callable[..., Any]
) -> None:
    model, x, y, threat = linear(2, "linf", 8)
    starts: list[Tensor] = []

    def view(z: Tensor):
        starts.append(z[:8].detach().clone())
        return model(z)

    t = trial(model, x, y, threat, view=view, answer=False)
    APGD(2, restarts=3)(t.problem)
    assert len(starts) == 9
    first = np.stack([s.numpy() for s in starts[::3]])
    assert np.abs(np.diff(first, axis=0)).max(axis=(2, 3, 4)).min() > threat.eps / 2
    t = trial(model, x, 1 - y, replace(threat, eps=1e-5))
    APGD(2, restarts=3)(t.problem)
    assert t.passes.forwards == len(x)  # misclassified from the start
