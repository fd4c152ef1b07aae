from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.adapters import attackable
from unmask.gradients.bpda import View, bpda
from unmask.gradients.straight_through import straight_through
from unmask.types import Output


class Round(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


class Noise(nn.Module):
    """Multiplies each image by its own draw."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.randn(len(x), 1, 1, 1)


@pytest.fixture
def rounded() -> nn.Module:
    """Class 1 where w (x - 1/2) > 0, for one w."""
    torch.manual_seed(0)
    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight[1] = -linear.weight[0]
        linear.bias.copy_(-0.5 * linear.weight.sum(1))
    return nn.Sequential(Round(), nn.Flatten(), linear)


def by_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """As any other library would write it."""
    x_adv = x.clone()
    for _ in range(20):
        x_adv.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = (x_adv.detach() + eps / 8 * gradient.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return x_adv


@pytest.mark.parametrize("view", [bpda("0"), straight_through])
def test_another_librarys_attack_breaks_what_it_cannot_break_alone(rounded: nn.Module, view: View) -> None:
    x = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = rounded(x).argmax(1)
    assert torch.equal(by_pgd(rounded, x, y, 0.3), x)  # no gradient, no step
    module = attackable(rounded, view=view)
    assert torch.equal(module(x), rounded(x))
    assert torch.equal(module(x.clone().requires_grad_(True)), rounded(x))
    fooled = rounded(by_pgd(module, x, y, 0.3)).argmax(1) != y
    assert fooled.double().mean() > 0.9


def test_without_a_view_it_is_the_model() -> None:
    linear = nn.Linear(4, 3)
    model = nn.Sequential(nn.Flatten(), linear)
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    module = attackable(model)
    (gradient,) = torch.autograd.grad(module(x)[:, 0].sum(), x)
    assert torch.equal(module(x), model(x))
    assert torch.equal(gradient.flatten(1), linear.weight[:1].expand(2, 4))
    assert not module.training


def test_the_backward_pass_is_the_mean_of_the_draws_and_the_forward_pass_one_of_them() -> None:
    x = torch.ones(2, 1, 1, 2, requires_grad=True)
    model = nn.Sequential(Noise(), nn.Flatten())
    torch.manual_seed(0)
    draws = torch.stack([torch.randn(2, 1, 1, 1).flatten() for _ in range(50)])
    torch.manual_seed(0)
    logits = attackable(model, samples=50)(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert torch.equal(logits, draws[0][:, None].expand(2, 2))
    assert gradient.flatten().tolist() == pytest.approx(draws.mean(0).repeat_interleave(2).tolist(), rel=1e-5)


def test_further_draws_are_taken_only_for_a_gradient() -> None:
    calls: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Output:
            calls.append(len(x))
            return Output(x.flatten(1))

    module, x = attackable(Counting(), samples=5), torch.ones(1, 1, 1, 2)
    assert torch.equal(module(x), x.flatten(1))
    with torch.no_grad():
        module(x.requires_grad_(True))
    assert len(calls) == 2
    assert torch.equal(module(x), x.flatten(1))  # the Output of a detector becomes plain logits
    assert len(calls) == 7


def test_no_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="samples >= 1, not 0"):
        attackable(nn.Flatten(), samples=0)
