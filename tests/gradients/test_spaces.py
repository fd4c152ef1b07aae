from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.gradients.spaces import Latent, Pixels, Tanh
from unmask.randomness import make_keys, use_keys
from unmask.threats import L2, Linf

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_pixels_are_the_image() -> None:
    threat = Linf(0.1)
    assert torch.equal(Pixels().start(X, threat, at_random=False), X)
    start = Pixels().start(X, threat, at_random=True)
    assert 0.05 < (start - X).abs().max() <= 0.1 + 1e-6
    assert torch.equal(Pixels().decode(start), start)
    assert torch.equal(Pixels().retract(X + 1, X, threat), threat.project(X + 1, X))


def test_tanh_starts_at_the_image() -> None:
    x = X.clone()
    x[0], x[1] = 0.0, 1.0
    space = Tanh()
    z = space.start(x, Linf(0.1), at_random=False)
    assert z.isfinite().all()
    assert (space.decode(z) - x).abs().max() <= 1.2e-6  # the edge, and rounding
    assert (space.decode(z) - x)[2:].abs().max() < 5e-7
    assert torch.equal(space.retract(100 * z, x, Linf(0.1)), 100 * z)


def test_tanh_reaches_the_whole_box_and_no_more() -> None:
    z = torch.linspace(-20, 20, 401)
    image = Tanh().decode(z)
    assert image.min() == 0
    assert image.max() == 1
    assert (image.diff() >= 0).all()
    assert torch.allclose(image, torch.sigmoid(2 * z), atol=1e-6)


def test_tanh_starts_at_random_in_the_ball() -> None:
    space, threat = Tanh(), L2(0.2)
    image = space.decode(space.start(X, threat, at_random=True))
    assert (threat.distance(image, X) <= 0.2 + 1e-5).all()
    assert (threat.distance(image, X) > 0.01).all()


def linear_generator() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))


def least_squares(generator: nn.Sequential, x: Tensor) -> Tensor:
    weight, bias = generator.parameters()
    solution: Tensor = torch.linalg.lstsq(weight, (x.flatten(1) - bias).T).solution.T
    return solution.detach()


def test_latent_starts_at_the_least_squares_optimum() -> None:
    generator = linear_generator()
    space = Latent(generator, 3, tries=2, steps=300)
    z = space.start(X, Linf(0.1), at_random=False)
    best = least_squares(generator, X)
    assert torch.allclose(z, best, atol=2e-3)
    far = (generator(z) - X).square().flatten(1).sum(1)
    assert torch.allclose(far, (generator(best) - X).square().flatten(1).sum(1), atol=1e-5)
    assert torch.equal(space.decode(z), generator(z))
    assert torch.equal(space.retract(z, X, Linf(0.1)), z)
    assert not z.requires_grad
    assert all(p.grad is None for p in generator.parameters())


def test_latent_keeps_the_best_of_its_tries() -> None:
    """G(z) = (z^2 - 1)^2 z + 1/2 has a flat place at every |z| = 1; only the tries beyond it reach 2.5."""

    def generator(z: Tensor) -> Tensor:
        return ((z.square() - 1).square() * z + 0.5).view(-1, 1, 1, 1)

    x = torch.full((8, 1, 1, 1), 2.5)

    def far(tries: int) -> Tensor:
        with use_keys(make_keys(0, range(8), "test")), torch.no_grad():
            z = Latent(generator, 1, tries=tries, steps=60).start(x, Linf(0.1), at_random=True)
        return (generator(z) - x).abs().flatten()

    assert far(1).max() > 1
    assert far(64).max() < 0.1  # one try in six is beyond


def test_a_latent_start_does_not_depend_on_the_batch() -> None:
    space = Latent(linear_generator(), 3, tries=4, steps=5)

    def start(rows: Tensor) -> Tensor:
        with use_keys(make_keys(0, rows, "test")):
            return space.start(X[rows], Linf(0.1), at_random=True)

    whole = start(torch.arange(6))
    assert torch.allclose(start(torch.tensor([4, 1])), whole[[4, 1]], atol=1e-6)
