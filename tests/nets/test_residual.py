from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.nets.residual import Residual, Whitening, residual_net


def images(n: int = 130) -> Tensor:
    """Neighbouring pixels and channels are alike, and what is left of the last direction is below the 5e-4 added."""
    x = torch.rand(n, 3, 7, 6, generator=torch.Generator().manual_seed(0))
    x = x + x.roll(1, 2) + 0.5 * x.roll(1, 3)
    x[:, 2] = x[:, 0] + 0.02 * x[:, 2]
    return x / 4 + 0.3


def patches(x: Tensor) -> Tensor:
    """All 2x2 patches of images, (count, channels * 4)."""
    parts = [x[:, :, i : i + 2, j : j + 2].flatten(1) for i in range(x.shape[2] - 1) for j in range(x.shape[3] - 1)]
    return torch.cat(parts).double()


@pytest.mark.parametrize("directions", [1, 5, 12])
def test_the_outputs_on_the_fitted_patches_are_white(directions: int) -> None:
    x = images()
    layer = Whitening(3, directions)
    layer.fit(x)
    outputs = layer.double()(x.double()).transpose(0, 1).flatten(1)
    assert len(outputs) == 2 * directions
    assert torch.equal(outputs[directions:], -outputs[:directions])
    covariance = outputs[:directions].cov(correction=0).view(directions, directions)
    leading = torch.linalg.eigvalsh(patches(x).T.cov(correction=0)).flip(0)[:directions]
    assert torch.allclose(covariance.diagonal(), leading / (leading + 5e-4), atol=1e-4)
    assert torch.allclose(covariance, covariance.diagonal().diag(), atol=1e-4)
    if directions == 12:
        assert leading[0] > 50 * 5e-4
        assert leading[-1] < 5e-4  # where it is far from 1


def test_the_filters_are_orthogonal_and_span_the_largest_variance() -> None:
    x = images()
    layer = Whitening(3, 4)
    layer.fit(x)
    filters = layer.weight[:4].flatten(1).double()
    units = filters / filters.norm(dim=1, keepdim=True)
    assert torch.allclose(units @ units.T, torch.eye(4).double(), atol=1e-5)
    values, vectors = torch.linalg.eigh(patches(x).T.cov(correction=0))
    assert torch.allclose((units @ vectors.flip(1)).abs()[:, :4], torch.eye(4).double(), atol=1e-3)
    assert torch.allclose(filters.norm(dim=1), (values.flip(0)[:4] + 5e-4).rsqrt(), rtol=1e-4)


def test_images_of_a_single_colour_are_no_trouble() -> None:
    layer = Whitening(1, 4)
    layer.fit(torch.full((3, 1, 4, 4), 0.5))
    assert layer.weight.isfinite().all()
    assert torch.allclose(layer.weight.flatten(1).norm(dim=1), torch.full((8,), 5e-4**-0.5), rtol=1e-3)


def test_the_filters_are_not_trained_and_the_bias_is() -> None:
    layer = Whitening(3, 5)
    with torch.no_grad():
        layer.bias.fill_(7)  # type: ignore[union-attr]
    layer.fit(images())
    assert not layer.weight.requires_grad
    assert layer.bias is not None
    assert layer.bias.requires_grad
    assert (layer.bias == 0).all()
    layer(images(2)).square().sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@pytest.mark.parametrize("directions", [-1, 0, 13])
def test_directions_that_there_are_not_are_refused(directions: int) -> None:
    with pytest.raises(ValueError, match=f"patches of 3 channels have 1 to 12 directions, not {directions}"):
        Whitening(3, directions)


def test_a_residual_adds_its_body_to_its_input() -> None:
    x = torch.rand(2, 3)
    assert torch.equal(Residual(nn.ReLU(), nn.Tanh())(x), x + x.tanh())


@pytest.mark.parametrize("whitening", [0, 3])
@pytest.mark.parametrize(("channels", "classes", "widths"), [(3, 10, (4, 6, 8)), (1, 5, (4, 4))])
def test_nets_of_both_stems(whitening: int, channels: int, classes: int, widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = residual_net(channels, widths, whitening, classes)
    before = 2 * whitening or widths[0] // 2
    count = (4 * channels + 1) * before if whitening else (9 * channels + 2) * before
    for width in widths:
        count += (9 * before + 2) * width + 2 * (9 * width + 2) * width
        before = width
    assert sum(p.numel() for p in model.parameters()) == count + (before + 1) * classes
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    x = torch.rand(9, channels, 32, 32)
    assert model(x).shape == (9, classes)
    logits = model.eval()(x)
    assert torch.allclose(model(x[2:3]), logits[2:3], atol=1e-5)  # no example knows another
    assert len(logits.unique(dim=0)) == 9


@pytest.mark.parametrize("whitening", [0, 12])
def test_stages_halve_the_side(whitening: int) -> None:
    model = residual_net(widths=(4, 6, 8), whitening=whitening)
    h, sides = torch.rand(1, 3, 32, 32), []
    for part in list(model)[:5]:
        h = part(h)
        sides.append(h.shape[-1])
    assert sides == ([31, 15, 7, 3, 1] if whitening else [32, 16, 8, 4, 1])
