"""Gradients through descents that a model makes inside its forward pass, against finite differences."""

from __future__ import annotations

import gc
from collections.abc import Callable
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.straight_through import straight_through, unrolled

Solve = Callable[[Tensor], Tensor]


def energy(z: Tensor, x: Tensor) -> Tensor:
    return ((z - x) ** 2 + 0.1 * z**4).sum()


def cut_off(x: Tensor) -> Tensor:
    z, wanted = torch.zeros_like(x), x.detach()
    for _ in range(3):
        z = z.detach().requires_grad_()
        z = z - 0.1 * torch.autograd.grad(energy(z, wanted), z)[0]
    return z.detach()


def from_the_image(x: Tensor) -> Tensor:
    z = x.clone().detach()
    for _ in range(3):
        z.requires_grad_(True)
        (slope,) = torch.autograd.grad(energy(z, torch.ones_like(z)), z)
        z = (z - 0.1 * slope).detach()
    return z


def backward(x: Tensor) -> Tensor:
    z, wanted = torch.zeros_like(x).requires_grad_(), x.detach()
    for _ in range(3):
        energy(z, wanted).backward()
        with torch.no_grad():
            z -= 0.1 * z.grad  # type: ignore[operator]
            z.grad.zero_()  # type: ignore[union-attr]
    return z.detach()


def data(x: Tensor) -> Tensor:
    z = torch.zeros_like(x, requires_grad=True)
    for _ in range(3):
        energy(z, x).backward()
        z.data = z.data - 0.1 * z.grad.data  # type: ignore[union-attr]
        z.grad = None
    return z.detach()


def optimizer(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Solve:
    def solve(x: Tensor) -> Tensor:
        z = torch.full_like(x, 0.1, requires_grad=True)
        steps = make([z])
        for _ in range(3):
            steps.zero_grad()
            energy(z, x).backward()
            steps.step()
        return z.detach()

    return solve


class Solved(nn.Module):
    def __init__(self, solve: Solve) -> None:
        super().__init__()
        self.solve = solve

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return self.solve(x)


SOLVERS = {
    "autograd.grad": cut_off,
    "from the image": from_the_image,
    "backward": backward,
    "data": data,
    "SGD": optimizer(lambda z: torch.optim.SGD(z, lr=0.1, momentum=0.9)),
    "Adam": optimizer(lambda z: torch.optim.Adam(z, lr=0.1)),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_steps_are_a_part_of_the_graph(name: str) -> None:
    model, x = Solved(SOLVERS[name]), torch.tensor([[0.9, -0.3, 0.4]], dtype=torch.double, requires_grad=True)
    assert torch.equal(unrolled(model)(x), model(x.detach()))
    assert torch.autograd.gradcheck(unrolled(model), x, atol=1e-4)


@pytest.mark.parametrize("name", ["backward", "SGD", "Adam"])
def test_otherwise_they_are_not(name: str) -> None:
    x = torch.tensor([[0.9, -0.3]], requires_grad=True)
    assert not straight_through(Solved(SOLVERS[name]))(x).requires_grad


def test_the_first_pass_leaves_nothing_behind() -> None:
    """A gradient that hangs on what it is the gradient of is no garbage that Python can collect."""
    kept = list[ref[Tensor]]()

    def solve(x: Tensor) -> Tensor:
        z = torch.zeros_like(x, requires_grad=True)
        energy(z, x).backward()
        kept.append(ref(z))
        with torch.no_grad():
            z -= 0.1 * z.grad  # type: ignore[operator]
        return z.detach()

    unrolled(Solved(solve))(torch.ones(1, 2, requires_grad=True)).sum().backward()
    gc.collect()
    assert kept[0]() is None
