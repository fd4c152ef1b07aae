from __future__ import annotations

import torch
import torch.nn.functional as F

from unmask.defenses.selfstudy.inputs import Blur, Discretize, sloped


def test_a_bit_tells_whether_a_pixel_is_below_its_threshold() -> None:
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    code = Discretize(20)(x).unflatten(1, (3, 20))
    for i in range(20):
        assert torch.equal(code[:, :, i], (x < 0.05 * (i + 1) - 1e-9).float())


def test_the_number_of_bits_is_the_level() -> None:
    x = torch.tensor([0.0, 0.07, 0.49, 0.999]).view(1, 1, 2, 2)
    assert Discretize(20)(x).sum(1).flatten().tolist() == [20, 19, 11, 1]


def test_the_surrogate_is_near_the_code_and_has_a_slope() -> None:
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    near = sloped(20, width=1.0)(x)
    assert (near - Discretize(20)(x)).abs().max() <= 0.5 + 1e-4
    near.sum().backward()
    assert x.grad is not None
    assert (x.grad < 0).float().mean() > 0.8


def test_the_blur_is_the_product_of_two_means_of_neighbours() -> None:
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (1, 1, 1, 1))
    rows = (padded[:, :, 1:] + padded[:, :, :-1]) / 2
    blurred = Blur()(x)
    assert torch.allclose(blurred[:, :, :-1, :-1], (rows[..., 1:] + rows[..., :-1]) / 2, atol=1e-6)
    assert not blurred[:, :, -1].any()
    assert not blurred[..., -1].any()
