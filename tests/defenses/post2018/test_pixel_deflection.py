from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.defenses.post2018.inputs.pixel_deflection import Deflect, ShrinkWavelets, shrunk
from unmask.gradients.straight_through import straight_through
from unmask.randomness import make_keys, use_keys

X = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_deflected_value_comes_from_its_channel_and_from_the_window() -> None:
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    x = torch.stack([1000.0 * c + 10 * rows + columns for c in range(3)]).expand(40, 3, 9, 9)
    with use_keys(make_keys(0, range(40), "test")):
        moved = Deflect(60, 2)(x)
    assert torch.equal(moved // 1000, x // 1000)
    down, right = (moved % 1000) // 10 - rows, moved % 10 - columns
    assert down.abs().max() == right.abs().max() == 2
    changed = (moved != x).flatten(1).sum(1)
    assert changed.max() <= 60
    assert changed.min() > 40


def test_each_image_has_draws_of_its_own_that_do_not_depend_on_the_batch() -> None:
    deflect = Deflect(30, 4)
    with use_keys(make_keys(0, range(3), "test")):
        together = deflect(X[:1].expand(3, -1, -1, -1))
    with use_keys(make_keys(0, [2], "test")):
        alone = deflect(X[:1])
    assert torch.equal(together[2:], alone)
    assert not torch.equal(together[0], together[1])


def test_without_deflections_or_window_nothing_changes() -> None:
    assert torch.equal(Deflect(0, 4)(X), X)
    assert torch.equal(Deflect(50, 0)(X), X)


def test_details_below_the_threshold_disappear_and_others_are_shortened() -> None:
    """One level, sigma 0.5: a detail of 2 in all places has the threshold 0.25 / sqrt(4 - 0.25)."""
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(8, 8)[None, None]
    left = 1 - 0.25 / (4 - 0.25) ** 0.5 / 2
    assert torch.allclose(shrunk(stripes, 0.5, 1), left * stripes, atol=1e-6)
    assert torch.allclose(shrunk(0.2 * stripes, 0.5, 1), torch.zeros(1, 1, 8, 8), atol=1e-6)
    assert torch.allclose(shrunk(stripes, 0.5, 0), stripes)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_without_noise_the_transform_is_inverted_and_means_stay(levels: int) -> None:
    assert torch.allclose(shrunk(X, 0.0, levels), X, atol=1e-5)
    assert torch.allclose(shrunk(X, 0.3, levels).mean((2, 3)), X.mean((2, 3)), atol=1e-5)


def test_denoising_removes_noise_and_keeps_grey_and_colour() -> None:
    tint = torch.tensor([1.0, 0.8, 0.6])[:, None, None]
    smooth = torch.linspace(0.2, 0.8, 32)[:, None].expand(3, 32, 32)[None] * tint
    noisy = smooth + 0.03 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    after = ShrinkWavelets(0.06)(noisy)
    assert (after - smooth).square().mean() < 0.75 * (noisy - smooth).square().mean()
    colour = torch.tensor([0.9, 0.1, 0.3]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert torch.allclose(ShrinkWavelets()(colour), colour, atol=1e-5)


def test_no_gradient_passes_but_straight_through_the_operations() -> None:
    x, layers = X.clone().requires_grad_(), nn.Sequential(Deflect(30, 2), ShrinkWavelets())
    assert not layers(x).requires_grad
    with use_keys(make_keys(0, range(3), "test")):
        expected = layers(x)
    with use_keys(make_keys(0, range(3), "test")):
        through = straight_through(layers)(x)
    assert torch.equal(through, expected)
    through.sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == pytest.approx(x.numel(), rel=0.05)  # of grey, each pixel's whole weight


def test_a_negative_number_of_deflections_is_refused() -> None:
    with pytest.raises(ValueError, match="neither -1 deflections"):
        Deflect(-1, 3)
