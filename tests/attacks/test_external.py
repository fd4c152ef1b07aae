"""Attacks of other libraries, through the doors: a linear model, whose optimum is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.external import external_attack
from unmask.gradients.bpda import bpda
from unmask.randomness import normal
from unmask.threats import Linf

N = 32


class Round(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


def linear() -> nn.Sequential:
    """Two classes, with logits -w (x - 1/2) and w (x - 1/2)."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer).eval()


def images() -> Tensor:
    return 0.3 + 0.4 * torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def one_step(eps: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return (x + eps * gradient.sign()).clamp(0, 1)


def standing(model: nn.Sequential, x: Tensor, eps: float) -> Tensor:
    """Whether (B,) no change of up to eps, far from the box, turns the sign of a linear score."""
    weight = model[1].weight[1] - model[1].weight[0]  # type: ignore[index]
    found: Tensor = model(x).diff(dim=1).abs().flatten() > eps * weight.abs().sum()
    return found


@pytest.mark.parametrize("array", [False, True])
def test_one_step_leaves_the_exact_robust_accuracy_of_a_linear_model(array: bool) -> None:
    model, x, eps = linear(), images(), 0.05

    def search(module: nn.Module, x: Tensor, y: Tensor) -> Tensor | np.ndarray[Any, Any]:
        found = one_step(eps, module, x, y)
        return found.detach().numpy() if array else found

    found = run_attack(external_attack(search), model, x, model(x).argmax(1), Linf(eps))
    expected = standing(model, x, eps)
    assert 0 < expected.sum() < N
    assert torch.equal(found.verdict.robust_fraction.bool(), expected)
    assert (found.passes.forwards, found.passes.backwards) == (N, N)


def test_a_candidate_outside_the_ball_breaks_nothing() -> None:
    model, x = linear(), images()
    y = model(x).argmax(1)
    far = external_attack(lambda module, x, y: one_step(0.4, module, x, y))
    assert not run_attack(far, model, x, y, Linf(0.4)).verdict.robust_fraction.any()
    found = run_attack(far, model, x, y, Linf(0.05))
    assert not found.verdict.feasible.any()
    assert found.accuracy.value == 1


def test_its_view_gives_a_gradient_where_the_model_has_none() -> None:
    bare, x = linear(), images()
    model = nn.Sequential(Round(), *bare).eval()
    y = model(x).argmax(1)

    def search(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return one_step(0.2, module, x, y)

    assert run_attack(external_attack(search), model, x, y, Linf(0.2)).accuracy.value == 1
    assert run_attack(external_attack(search, bpda("0")), model, x, y, Linf(0.2)).accuracy.value == 0
    assert run_attack(external_attack(search), model, x, y, Linf(0.2), view=bpda("0")).accuracy.value == 0


def test_in_an_ensemble_it_gets_what_the_attacks_before_left() -> None:
    model, x, seen = linear(), images(), list[int]()
    y = model(x).argmax(1)

    def search(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(len(x))
        return one_step(0.05, module, x, y)

    worst = Ensemble((pgd(20, rel_step_size=0.2), external_attack(search)))
    left = run_attack(worst, model, x, y, Linf(0.05)).verdict.robust_fraction.bool()
    assert torch.equal(left, standing(model, x, 0.05))
    assert seen == [int(left.sum())]


def test_its_draws_follow_from_the_seed_and_differ_from_call_to_call() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] + normal((len(x), 2), like=x)

    x, y, told = images(), torch.zeros(N, dtype=torch.long), list[Tensor]()

    def search(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        told.extend((module(x), module(x), module(torch.cat((x, x[:3]))), torch.rand(3)))
        return x

    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        run_attack(external_attack(search), Noisy().eval(), x, y, Linf(0.1), draws=2, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(told[i], told[4 + i]) for i in range(4))
    assert not any(torch.equal(told[i], told[8 + i]) for i in range(4))
    assert not torch.equal(told[0], told[1])
    assert len(told[2]) == N + 3
    assert not torch.equal(told[2][:3], told[2][N:])


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    model, x = linear(), images()
    y = model(x).argmax(1)
    with pytest.raises(ValueError, match="samples >= 1, not 0"):
        external_attack(one_step, samples=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"gives shape \(31, 1, 4, 4\).*one candidate an image"):
        run_attack(external_attack(lambda module, x, y: x[1:]), model, x, y, Linf(0.1))
    with pytest.raises(ValueError, match=r"lie in \[2, 2\]"):
        run_attack(external_attack(lambda module, x, y: module(2 + 0 * x)), model, x, y, Linf(0.1))
