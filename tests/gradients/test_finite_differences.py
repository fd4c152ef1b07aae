"""Finite differences through a part, against slopes that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.surrogates.finite_differences import finite_differences
from unmask.randomness import make_keys, normal, use_keys


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (4 * x.detach()).round() / 4


class Mixed(nn.Module):
    """Outside of torch, to another shape: (B, 2) -> (B, 3)."""

    matrix = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() @ self.matrix.numpy())


class Shifted(nn.Module):
    """Random by far more than the differences are long."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.detach() + 100 * normal(x.shape, like=x)


def slope(model: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((model(x) * weight).sum(), x)
    return gradient


def test_a_single_number_has_the_secant_for_a_slope() -> None:
    """Its directions are 1 and -1, which leave no noise: from 0.25 less to 0.25 more, rounding rises by 0.5."""
    view = finite_differences("0", pairs=1, size=0.25)(nn.Sequential(Rounded()))
    assert slope(view, torch.tensor([[0.3], [0.7]]), torch.tensor(2.0)).tolist() == [[2.0], [2.0]]


def test_the_product_with_the_jacobian_is_right_on_average() -> None:
    weight = torch.tensor([1.0, 2.0, -1.0])
    view = finite_differences("0", pairs=4000)(nn.Sequential(Mixed()))
    wanted = Mixed.matrix @ weight
    torch.testing.assert_close(slope(view, torch.rand(1, 2), weight)[0], wanted, atol=0.6, rtol=0)


def test_the_forward_pass_is_the_models_own() -> None:
    x = torch.rand(5, 2)
    model = nn.Sequential(Mixed())
    assert torch.equal(finite_differences("0")(model)(x.clone().requires_grad_()), model(x))


def test_both_sides_of_a_difference_have_the_same_draws() -> None:
    view = finite_differences("0", pairs=2)(nn.Sequential(Shifted()))
    with use_keys(make_keys(0, [0, 1], "test")):
        gradient = slope(view, torch.rand(2, 1), torch.tensor(1.0))
    torch.testing.assert_close(gradient, torch.full((2, 1), 3.0), atol=1e-3, rtol=0)


def test_rows_have_directions_of_their_own_whatever_the_batch() -> None:
    x, view = torch.rand(4, 2), finite_differences("0", pairs=2)(nn.Sequential(Mixed()))
    keys = make_keys(0, range(4), "test")
    with use_keys(keys):
        together = slope(view, x, torch.ones(3))
    with use_keys(keys.select(torch.tensor([2]))):
        alone = slope(view, x[2:3], torch.ones(3))
    torch.testing.assert_close(alone, together[2:3])


@pytest.mark.parametrize(("pairs", "size"), [(0, 0.1), (4, 0.0), (4, -1.0)])
def test_settings_out_of_range_are_refused(pairs: int, size: float) -> None:
    with pytest.raises(ValueError, match="pairs >= 1"):
        finite_differences("0", pairs, size)
