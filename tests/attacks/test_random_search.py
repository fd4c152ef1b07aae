from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.attacks.black_box.random_search import RandomSearch
from unmask.threats import L2, Linf


def pixel(x: Tensor) -> Tensor:
    """One pixel; the margin of class 0 is x - 0.7."""
    return torch.stack((torch.zeros(len(x)), x.flatten(1)[:, 0] - 0.7), 1)


def test_the_best_of_k_uniform_points(trial: Callable[..., Any]) -> None:
    """x = 0.5 + 0.1 (2u - 1): the largest of k has mean k / (k + 1) and variance k / (k + 1)^2 / (k + 2) in u."""
    n, k = 4000, 4
    t = trial(pixel, torch.full((n, 1, 1, 1), 0.5), torch.zeros(n, dtype=torch.long), Linf(0.1))
    u = (RandomSearch(k, batch=9000)(t.problem).flatten().double() - 0.4) / 0.2
    error = (k / (k + 1) ** 2 / (k + 2) / n) ** 0.5
    assert u.mean().item() == pytest.approx(k / (k + 1), abs=4 * error)
    assert u.std().item() == pytest.approx(error * n**0.5, rel=0.05)
    assert not t.asked
    assert (t.passes.forwards, t.passes.backwards) == (n * k, 0)


def test_share_broken_is_that_of_the_ball_beyond_the_boundary(trial: Callable[..., Any]) -> None:
    """Of the disc around (0.5, 0.5) of radius 0.4 the part beyond x = 0.7: half the radius away, 19.55 %."""
    n, k = 3000, 3
    t = trial(pixel, torch.full((n, 1, 1, 2), 0.5), torch.zeros(n, dtype=torch.long), L2(0.4))
    x_adv = RandomSearch(k)(t.problem)
    expected = 1 - (1 - 0.19550) ** k
    broken = t.broken(x_adv)
    assert broken.double().mean().item() == pytest.approx(expected, abs=4 * (0.25 / n) ** 0.5)
    seen = t.seen_broken()
    assert sorted(seen) == broken.nonzero().flatten().tolist()
    assert all(torch.equal(x_adv[row], candidate) for row, candidate in seen.items())


def test_the_size_of_passes_changes_nothing(trial: Callable[..., Any], linear: Callable[..., Any]) -> None:
    model, x, y, threat = linear(3, "l2", 10)
    results = []
    for batch in (1, 30, 10000):
        problem = trial(model, x, y, threat, answer=False).problem
        results.append(RandomSearch(25, batch=batch)(problem))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
