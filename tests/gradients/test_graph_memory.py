from __future__ import annotations

import gc
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import View
from unmask.gradients.eot import EOT
from unmask.gradients.straight_through import straight_through, unrolled
from unmask.losses import margin
from unmask.models import graph_memory
from unmask.models.graph_memory import bounded_graphs, count_graph, forget_graph, rows_of_a_graph
from unmask.randomness import make_keys, normal, use_keys
from unmask.threats import Linf


def noisy(z: Tensor, rows: Tensor | None = None) -> Tensor:
    """The value of an example depends on its draw and on its number."""
    numbers = torch.arange(len(z)) if rows is None else rows
    return (z * (1 + normal(z.shape, like=z))).square().sum(1) + numbers


def test_a_gradient_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    z, keys = torch.rand(50, 3), make_keys(0, range(50), "parts")
    with use_keys(keys):
        values, gradient = autograd(noisy, z)
    seen = []

    def watched(z: Tensor, rows: Tensor | None = None) -> Tensor:
        seen.append(len(z))
        return count_graph(lambda: noisy(z, rows), len(z))

    monkeypatch.setattr(graph_memory, "_BYTES", 16 * 2 * 12)  # of 16 rows: what is squared, and what multiplies z
    with use_keys(keys), bounded_graphs():
        parts = autograd(watched, z)
    assert seen == [16, 16, 16, 2]
    assert torch.equal(values, parts[0])
    assert torch.equal(gradient, parts[1])


def test_another_view_is_counted_anew() -> None:
    x = torch.rand(16, 1000, requires_grad=True)
    with bounded_graphs():
        assert rows_of_a_graph() == 16
        count_graph(lambda: x.exp(), 16)
        assert rows_of_a_graph() == (1 << 29) // 4000 // 16 * 16
        forget_graph()
        count_graph(lambda: x.exp().exp(), 16)
        assert rows_of_a_graph() == (1 << 29) // 8000 // 16 * 16
    assert rows_of_a_graph() is None


class Wide(nn.Module):
    """Logits of images (B, 1, 1, 2) after steps that are all kept for the gradient; ROWS are those of its passes."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            ROWS.append(len(x))
        for _ in range(8):
            x = (x + 0.0 * normal(x.shape, like=x)).exp().log()
        return x.flatten(1)


ROWS: list[int] = []


def test_attacks_take_gradients_of_as_many_rows_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(32, 1, 1, 2)
    attack = pgd(2, margin, EOT(8))
    ROWS.clear()
    whole = run_attack(attack, Wide().eval(), x, x.flatten(1).argmax(1), Linf(0.01), draws=2)
    assert max(ROWS) > 64
    monkeypatch.setattr(graph_memory, "_BYTES", 1)
    ROWS.clear()
    parts = run_attack(attack, Wide().eval(), x, x.flatten(1).argmax(1), Linf(0.01), draws=2)
    assert max(ROWS) == 16
    assert torch.equal(whole.x_adv, parts.x_adv)


class Descends(nn.Module):
    """Purifies by steps on an energy whose layers save their own results, and answers without their graph."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            for _ in range(3):
                z = (z - torch.autograd.grad(self.energy(z).sum(), z)[0]).detach().requires_grad_()
        return torch.cat((z.detach().flatten(1), x.flatten(1)), 1)


@pytest.mark.parametrize("view", [straight_through, unrolled])
def test_passes_leave_no_graph_behind(view: View) -> None:
    """An operation that saves its own result does not hold itself where no backward pass goes through it."""
    viewed, x = view(Descends()), torch.rand(2, 1, 2, 2)

    def alive() -> int:
        with bounded_graphs():
            z = x.clone().requires_grad_()
            torch.autograd.grad(count_graph(partial(viewed, z), 2).sum(), z)
            del z
        gc.collect()
        return sum(type(one) is Tensor for one in gc.get_objects())

    alive()
    before = alive()
    assert [alive() for _ in range(3)] == [before] * 3
