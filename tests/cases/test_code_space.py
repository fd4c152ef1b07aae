from __future__ import annotations

import torch

from unmask.cases.code_space import Codes
from unmask.defenses.transforms.blocks import dct
from unmask.defenses.transforms.feature_distillation import FeatureDistillation
from unmask.randomness import make_keys, use_keys

TABLE = FeatureDistillation().table
X = 0.2 + 0.6 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
STEPS = TABLE.tile(2, 2)


def codes(x: torch.Tensor) -> torch.Tensor:
    return (dct(255 * x) / STEPS).round()


def test_an_image_stands_for_itself() -> None:
    space = Codes(TABLE)
    z = space.start(X, None, at_random=False)
    assert torch.allclose(z[:, 1], dct(255 * X) / STEPS, atol=1e-4)
    assert torch.allclose(space.decode(z), X, atol=1e-5)


def test_a_search_inside_a_cell_moves_nothing() -> None:
    space = Codes(TABLE)
    z = space.start(X, None, at_random=False)
    z[:, 0] = z[:, 1].round() + 0.4
    assert torch.allclose(space.decode(z), X, atol=1e-5)


def test_another_code_is_reached_by_the_shortest_way() -> None:
    space = Codes(TABLE)
    z = space.start(X, None, at_random=False)
    z[:, 0, 0, 0, 0] = z[:, 1, 0, 0, 0].round() + 1
    image = space.decode(z)
    wanted = codes(X)
    wanted[:, 0, 0, 0] += 1
    assert torch.equal(codes(image), wanted)
    own = dct(255 * X)[:, 0, 0, 0] / 25
    least = 25 * (own.round() + 0.5 - own) / 255  # to the edge of the next cell
    assert torch.allclose((image - X).flatten(1).norm(dim=1), least, atol=25 * 2e-3 / 255)


def test_the_quantiser_sees_the_codes_that_are_searched() -> None:
    space = Codes(TABLE)
    with use_keys(make_keys(0, range(2), "test")):
        z = space.start(X, None, at_random=True)
    assert (z[:, 0] - z[:, 1]).abs().max() <= 0.5
    seen = FeatureDistillation()(space.decode(z))
    middle = (dct(255 * seen) / STEPS).round()
    assert torch.equal(middle, z[:, 0].round())


def test_gradients_pass_as_if_frequencies_moved_freely() -> None:
    space = Codes(TABLE)
    z = space.start(X, None, at_random=False).requires_grad_()
    weight = torch.rand_like(X)
    (gradient,) = torch.autograd.grad((space.decode(z) * weight).sum(), z)
    assert torch.allclose(gradient[:, 0], STEPS * dct(weight) / 255, atol=1e-5)
    assert gradient[:, 1].abs().max() == 0
