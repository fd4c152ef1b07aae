from __future__ import annotations

import torch
from torch import Tensor

from unmask.gradients.autograd import autograd


def quadratic(z: Tensor, rows: Tensor | None = None) -> Tensor:
    """|z|^2 times the number of the example, plus one."""
    number = torch.arange(len(z)) if rows is None else rows
    return (number + 1) * z.square().flatten(1).sum(1)


def test_gradient_of_a_quadratic_example_by_example() -> None:
    z = torch.rand(3, 2, 2)
    values, gradient = autograd(quadratic, z)
    scale = torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(values, scale * z.square().sum((1, 2)))
    assert torch.allclose(gradient, 2 * scale.view(-1, 1, 1) * z)
    assert not values.requires_grad
    assert not gradient.requires_grad


def test_rows_name_the_examples() -> None:
    z = torch.rand(2, 4)
    _, gradient = autograd(quadratic, z, torch.tensor([4, 0]))
    assert torch.allclose(gradient, 2 * torch.tensor([[5.0], [1.0]]) * z)


def test_what_does_not_depend_on_the_point_has_gradient_zero() -> None:
    weight = torch.ones((), requires_grad=True)
    for constant in (lambda z, rows=None: z.detach().sum(1), lambda z, rows=None: weight.expand(len(z)) * 2):
        values, gradient = autograd(constant, torch.ones(2, 3))
        assert gradient.tolist() == [[0.0] * 3] * 2
        assert not values.requires_grad
    assert weight.grad is None


def test_gradients_are_taken_where_they_are_disabled() -> None:
    with torch.no_grad():
        _, gradient = autograd(quadratic, torch.ones(1, 2))
    assert gradient.tolist() == [[2.0, 2.0]]
