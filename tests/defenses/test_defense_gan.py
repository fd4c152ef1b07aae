from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.defense_gan import DefenseGAN, Projection
from unmask.randomness import make_keys, use_keys

X = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def linear_generator() -> nn.Sequential:
    """Orthonormal columns: the mean squared error has curvature 2 / 16 in every direction."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 16)
    layer.weight.data.copy_(torch.linalg.qr(torch.randn(16, 3)).Q)
    layer.bias.data.fill_(0.5)
    return nn.Sequential(layer, nn.Unflatten(1, (1, 4, 4)))


def basis_of(generator: nn.Module) -> Tensor:
    return next(generator.parameters()).detach()


def onto(generator: nn.Module, x: Tensor) -> Tensor:
    weight = basis_of(generator)
    return (((x.flatten(1) - 0.5) @ weight) @ weight.T + 0.5).view_as(x)


class Wells(nn.Module):
    """G(z) = z^3 - z + 1/2: descents for x = 1/2 + 2 that start low are caught at z = -0.58."""

    def forward(self, z: Tensor) -> Tensor:
        return (z**3 - z + 0.5).view(-1, 1, 1, 1)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_of_a_linear_generator_it_is_the_orthogonal_projection(guard: type, requires_grad: bool) -> None:
    generator = linear_generator()
    purify = Projection(generator, 3, restarts=2, steps=100, rate=4.0, momentum=0.5)
    with guard():
        image = purify(X.clone().requires_grad_(requires_grad))
    assert torch.allclose(image, onto(generator, X), atol=1e-4)
    inside = generator(torch.randn(4, 3)).detach()
    assert torch.allclose(purify(inside), inside, atol=1e-4)  # the true z is found again
    assert all(p.grad is None for p in generator.parameters())


def test_more_steps_come_nearer() -> None:
    purify = Projection(linear_generator(), 3, restarts=1, rate=1.0, momentum=0.0)
    errors = []
    for purify.steps in (0, 5, 20, 80):
        with use_keys(make_keys(0, range(5), "test")):
            errors.append((purify(X) - X).square().flatten(1).mean(1))
    assert all((after < before).all() for before, after in pairwise(errors))


def test_momentum_and_the_decay_of_the_rate() -> None:
    """G(z) = z, one pixel: v <- m v + 2 (z - x), z <- z - r v, and r / 10 from 80 % of the steps on."""
    generator = nn.Unflatten(1, (1, 1, 1))
    x, z, velocity = 0.75, 0.0, 0.0
    for step in range(10):
        velocity = 0.7 * velocity + 2 * (z - x)
        z -= (0.1 if step < 8 else 0.01) * velocity
    image = Projection(generator, 1, restarts=1, steps=10, rate=0.1, scale=0.0)(torch.full((1, 1, 1, 1), x))
    assert image.item() == pytest.approx(z, rel=1e-5)


def test_the_nearest_restart_is_kept_for_each_image() -> None:
    x = torch.full((256, 1, 1, 1), 2.5)

    def errors(restarts: int) -> Tensor:
        with use_keys(make_keys(0, range(256), "test")):
            purify = Projection(Wells(), 1, restarts, steps=200, rate=0.02, momentum=0.5, scale=1.0)
            return (purify(x) - x).abs().flatten()  # type: ignore[no-any-return]

    alone, best = errors(1), errors(64)
    assert ((alone < 0.01) | (alone > 1) | alone.isnan()).all()  # there, caught, or diverged
    assert 0.1 < (alone > 1).double().mean() < 0.8
    assert alone.isnan().any()
    assert (best < 0.01).all()


@pytest.mark.parametrize("restarts", [1, 3])
def test_unrolled_gradient_agrees_with_finite_differences(restarts: int) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2))).double()
    purify = Projection(generator, 2, restarts, steps=4, rate=1.0, scale=0.5)

    def project(x: Tensor) -> Tensor:
        with use_keys(make_keys(0, range(2), "test")):
            return purify(x)  # type: ignore[no-any-return]

    x = torch.rand(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project, x)
    (gradient,) = torch.autograd.grad(project(x).sum(), x)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize(("rows", "kept"), [(1, 1), (4, 3), (100, 2)])
def test_memory_is_bounded_without_a_trace_in_the_numbers(rows: int, kept: int) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 16), nn.Unflatten(1, (1, 4, 4))).double()

    def answer(purify: Projection) -> tuple[Tensor, Tensor]:
        x = X.double().requires_grad_()
        with use_keys(make_keys(0, range(5), "test")):
            image = purify(x)
        return image.detach(), torch.autograd.grad(image.square().sum(), x)[0]

    whole = Projection(generator, 2, restarts=3, steps=7, rate=1.0, scale=0.5, kept=7)
    parts = Projection(generator, 2, restarts=3, steps=7, rate=1.0, scale=0.5, rows=rows, kept=kept)
    for found, wanted in zip(answer(parts), answer(whole), strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_unrolled_gradient_of_a_converged_projection_is_its_matrix() -> None:
    generator = linear_generator()
    purify = Projection(generator, 3, restarts=1, steps=60, rate=4.0, momentum=0.0)
    x = X[:1].clone().requires_grad_(True)
    weight = torch.rand(16)
    (gradient,) = torch.autograd.grad((purify(x).flatten() * weight).sum(), x)
    basis = basis_of(generator)
    assert torch.allclose(gradient.flatten(), basis @ (basis.T @ weight), atol=1e-3)


@pytest.mark.parametrize("unrolled", [False, True])
def test_the_image_is_the_same_with_and_without_a_gradient(unrolled: bool) -> None:
    purify = Projection(linear_generator(), 3, restarts=3, steps=7)
    keys = make_keys(0, range(5), "test")
    with use_keys(keys), torch.no_grad():
        expected = purify(X)
    with use_keys(keys):
        image = purify(X.clone().requires_grad_(unrolled))
    assert torch.allclose(image, expected, atol=1e-6)


def test_an_example_does_not_depend_on_the_batch() -> None:
    purify = Projection(linear_generator(), 3, restarts=3, steps=3)

    def project(rows: Tensor) -> Tensor:
        with use_keys(make_keys(0, rows, "test")):
            return purify(X[rows])  # type: ignore[no-any-return]

    whole = project(torch.arange(5))
    for rows in (torch.tensor([4]), torch.tensor([2, 0, 1])):
        assert torch.allclose(project(rows), whole[rows], atol=1e-6)
    with use_keys(make_keys(1, range(5), "test")):
        assert not torch.allclose(purify(X), whole, atol=1e-3)  # three steps do not forget the start


def test_the_classifier_sees_the_projected_image() -> None:
    generator = linear_generator()
    defense = DefenseGAN(nn.Flatten(), Projection(generator, 3, restarts=1, steps=100, rate=4.0, momentum=0.5))
    assert torch.allclose(defense(X), onto(generator, X).flatten(1), atol=1e-4)
