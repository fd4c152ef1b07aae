from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unmask.gradients.eot import EOT
from unmask.gradients.spsa import SPSA, gaussian, rademacher
from unmask.randomness import make_keys, normal, use_keys
from unmask.types import Estimator, Objective

Directions = Callable[[tuple[int, ...], Tensor], Tensor]

SLOPE = torch.tensor([3.0, -1.0, 0.0, 0.5])


def linear(z: Tensor, rows: Tensor | None = None) -> Tensor:
    return z @ SLOPE.to(z) + 2


def keyed(estimator: Estimator, objective: Objective, z: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with use_keys(make_keys(0, torch.arange(len(z)) if index is None else index, "test")):
        return estimator(objective, z)


def recorded(directions: list[Tensor]) -> SPSA:
    """NES whose directions are written down."""

    def draw(size: tuple[int, ...], like: Tensor) -> Tensor:
        directions.append(gaussian(size, like))
        return directions[-1]

    return SPSA(samples=10, sigma=0.1, directions=draw, batch=12)


def test_of_a_linear_function_the_slope_along_each_direction_is_exact() -> None:
    directions: list[Tensor] = []
    z = torch.rand(3, 4, dtype=torch.float64)
    values, gradient = recorded(directions)(linear, z)
    u = torch.cat(directions).view(10, 3, 4)
    expected = torch.einsum("sbi,sbj,j->bi", u, u, SLOPE.double()) / 10
    assert torch.allclose(gradient, expected, rtol=1e-10)
    assert torch.allclose(values, linear(z), rtol=1e-12)  # the odd part cancels


def test_of_a_quadratic_function_the_even_part_cancels() -> None:
    """((z + s u)^2 - (z - s u)^2) / 2s = 2 z u, for any length s of the difference."""
    directions: list[Tensor] = []
    z = torch.rand(3, 4, dtype=torch.float64)
    values, gradient = recorded(directions)(lambda z, rows=None: z.square().sum(1), z)
    u = torch.cat(directions).view(10, 3, 4)
    assert torch.allclose(gradient, torch.einsum("sbi,sbj,bj->bi", u, u, 2 * z) / 10, rtol=1e-10)
    assert torch.allclose(values, z.square().sum(1) + 0.01 * u.square().sum(2).mean(0), rtol=1e-10)


@pytest.mark.parametrize(("directions", "noise"), [(rademacher, 3.0), (gaussian, 4.5)])
def test_sign_and_size(directions: Directions, noise: float) -> None:
    """The noise of a draw is about |slope| for SPSA, and more for NES, whose lengths vary."""
    samples = 4000
    _, gradient = keyed(SPSA(samples, directions=directions), linear, torch.zeros(8, 4))
    errors = (gradient - SLOPE).abs()
    assert errors.max() < 4.5 * noise * SLOPE.norm() / 3 / samples**0.5 + 1e-3
    assert errors.max() > 0


def test_rademacher_directions_are_signs() -> None:
    with use_keys(make_keys(0, range(10), "test")):
        u = rademacher((10, 4000), torch.zeros(()))
    assert set(u.flatten().tolist()) == {-1.0, 1.0}
    assert u.mean().abs() < 4.5 / u.numel() ** 0.5
    assert torch.corrcoef(u).fill_diagonal_(0).abs().max() < 5 / u.shape[1] ** 0.5


def test_examples_are_never_mixed() -> None:
    def objective(change: float) -> Objective:
        def values(z: Tensor, rows: Tensor | None = None) -> Tensor:
            assert rows is not None
            return linear(z) + torch.where(rows == 1, change * z.square().sum(1), 0.0)

        return values

    z = torch.rand(3, 4)
    before, after = (keyed(SPSA(16), objective(change), z) for change in (0.0, 100.0))
    for was, now in zip(before, after, strict=True):
        assert torch.equal(was[[0, 2]], now[[0, 2]])
        assert not torch.equal(was[1], now[1])
    alone = keyed(SPSA(16), lambda z, rows=None: linear(z), z[2:], torch.tensor([2]))
    assert torch.allclose(alone[1], before[1][2:], rtol=1e-4)


def test_chunks_make_no_difference() -> None:
    z = torch.rand(3, 4, dtype=torch.float64)
    whole = keyed(SPSA(20), linear, z)
    for batch in (1, 9, 31):
        part = keyed(SPSA(20, batch=batch), linear, z)
        assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(part, whole, strict=True))


def test_both_points_of_a_pair_see_the_same_draw() -> None:
    """An additive noise a thousand times the signal cancels, but not between pairs."""
    seen: list[Tensor] = []

    def noisy(z: Tensor, rows: Tensor | None = None) -> Tensor:
        seen.append(normal((len(z), 1), z).squeeze(1))
        return linear(z) + 1000 * seen[-1]

    z = torch.zeros(2, 4, dtype=torch.float64)
    _, gradient = keyed(SPSA(50, sigma=0.1), noisy, z)
    _, expected = keyed(SPSA(50, sigma=0.1), linear, z)
    assert torch.allclose(gradient, expected, atol=1e-8)
    up, down = seen
    assert torch.equal(up, down)
    assert len(up.unique()) == 100


def test_no_backward_pass_is_taken() -> None:
    class Blocked(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, z: Tensor) -> Tensor:
            return z.round(decimals=3)

    def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
        assert not torch.is_grad_enabled()
        answer: Tensor = Blocked.apply(z).sum(1)
        return answer

    _, gradient = keyed(SPSA(500, sigma=0.05), objective, torch.zeros(1, 3).requires_grad_(True))
    assert not gradient.requires_grad
    assert (gradient - 1).abs().max() < 0.4


def test_a_random_function_is_smoothed_by_averaging_over_draws() -> None:
    def noisy(z: Tensor, rows: Tensor | None = None) -> Tensor:
        return linear(z) * (1 + normal((len(z), 1), z).squeeze(1))

    _, gradient = keyed(EOT(4000, SPSA(1)), noisy, torch.zeros(2, 4))
    assert (gradient - SLOPE).abs().max() < 4.5 * 2 * SLOPE.norm() / 4000**0.5


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"batch": 0}, {"sigma": 0.0}])
def test_what_gives_no_gradient_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="SPSA needs samples >= 1, batch >= 1 and sigma > 0"):
        SPSA(**wrong)  # type: ignore[arg-type]
