from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.pixeldefend import PixelDefend, Purify, reach, solve
from unmask.gradients.bpda import bpda
from unmask.nets.logistic_mixture import greedy
from unmask.nets.pixel_cnn import PixelCNN

EPS = 16


def density(channels: int, seed: int = 0) -> PixelCNN:
    """Weights large enough that the distributions of neighbours depend strongly on one another."""
    torch.manual_seed(seed)
    net = PixelCNN(channels, width=8, layers=3, components=3).double()
    for parameter in net.parameters():
        parameter.data *= 2
    return net


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def literal(net: PixelCNN, low: Tensor, high: Tensor) -> Tensor:
    """The definition: one pixel and channel after another, the whole network for each."""
    levels = torch.zeros_like(low)
    first, last = low.permute(0, 2, 3, 1), high.permute(0, 2, 3, 1)
    for i in range(low.shape[2]):
        for j in range(low.shape[3]):
            for c in range(low.shape[1]):
                chosen = greedy(net(levels)[:, i, j], first[:, i, j], last[:, i, j])
                levels[:, c, i, j] = chosen[:, c]
    return levels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(5, 3, 6, 7), (3, 1, 9, 5)])
@torch.no_grad()
def test_waves_of_pixels_come_to_the_same_as_one_after_another(shape: tuple[int, ...], seed: int) -> None:
    net = density(shape[1], seed)
    low, high = reach(images(*shape), EPS)
    assert torch.equal(solve(net, low, high), literal(net, low, high))


def test_levels_are_recovered_exactly() -> None:
    """[x - eps, x + eps] of a stored image has 2 eps + 1 levels; a division by 255 and back loses none."""
    x = (torch.arange(256) / 255).view(1, 1, 16, 16)
    low, high = reach(x, EPS)
    levels = torch.arange(256).view(1, 1, 16, 16)
    assert torch.equal(low, (levels - EPS).clamp_min(0))
    assert torch.equal(high, (levels + EPS).clamp_max(255))
    assert torch.equal(Purify(density(1), eps=0)(x), x)


def test_between_levels_only_those_inside_are_candidates() -> None:
    low, high = reach(torch.tensor([[[[100.5 / 255]]]]), EPS)
    assert (int(low), int(high)) == (85, 116)


def test_the_result_is_near_and_on_the_grid() -> None:
    x = images(2, 3, 8, 8)
    purified = Purify(density(3), EPS)(x)
    assert ((purified - x).abs() <= EPS / 255 + 1e-6).all()
    assert torch.equal(purified, (255 * purified).round() / 255)
    assert purified.dtype == x.dtype


def test_an_image_comes_out_the_same_in_any_batch() -> None:
    purify, x = Purify(density(3), EPS), images(7, 3, 8, 8)
    together = purify(x)
    assert torch.equal(together, torch.cat([purify(part) for part in x.split([1, 4, 2])]))


@torch.no_grad()
def test_the_chosen_image_is_likelier() -> None:
    """Not a theorem for greedy choices, but a sign that something is off where it fails for all images."""
    net, x = density(3), images(6, 3, 8, 8)
    purified = solve(net, *reach(x, EPS))
    assert (net.bits_per_dim(purified) < net.bits_per_dim((255 * x).round().long())).all()


def test_no_gradient_passes_until_the_attack_supplies_one() -> None:
    model = PixelDefend(nn.Flatten(), Purify(density(1), EPS))
    x = images(2, 1, 4, 4).requires_grad_()
    assert not model(x).requires_grad
    view = bpda("purify")(model)
    assert torch.equal(view(x), model(x))
    view(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))
