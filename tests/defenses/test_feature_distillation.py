from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor, nn

from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.transforms.feature_distillation import FeatureDistillation, frequency_spread, two_bands
from unmask.gradients.bpda import bpda

DRAW = torch.Generator().manual_seed(0)
X = torch.rand(3, 3, 16, 24, generator=DRAW, dtype=torch.float64)


def published() -> np.ndarray:
    table = np.full((8, 8), 30.0)
    table[:4, :4] = 25
    return table


def block_by_block(x: Tensor, table: np.ndarray) -> Tensor:
    out = 255 * x.double().numpy()
    for i, j, top, left in np.ndindex(*x.shape[:2], x.shape[2] // 8, x.shape[3] // 8):
        block = out[i, j, 8 * top : 8 * top + 8, 8 * left : 8 * left + 8]
        block[:] = idctn((dctn(block, norm="ortho") / table).round() * table, norm="ortho")
    return torch.from_numpy(out / 255).clip(0, 1)


def test_agrees_with_scipy_block_by_block() -> None:
    assert torch.allclose(FeatureDistillation()(X), block_by_block(X, published()), atol=1e-12)
    single = FeatureDistillation()(X.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single, block_by_block(X.float(), published()).float(), atol=1e-5)


def test_a_table_of_its_own() -> None:
    table = torch.arange(1.0, 65).view(8, 8)
    assert torch.allclose(FeatureDistillation(table)(X), block_by_block(X, table.numpy()), atol=1e-12)


def test_no_image_is_left_out_or_shifted() -> None:
    """The first image of a batch, and sides that are no multiples of 8."""
    whole = FeatureDistillation()(X)
    assert torch.allclose(FeatureDistillation()(X[:1]), whole[:1], atol=1e-12)
    fine = FeatureDistillation(torch.full((8, 8), 1e-3))
    x = X[..., :13, :21]
    assert fine(x).shape == x.shape
    assert torch.allclose(fine(x), x, atol=1e-4)
    inside = FeatureDistillation()(x)[..., :8, :16]
    assert torch.allclose(inside, whole[..., :8, :16], atol=1e-12)


def test_halves_go_away_from_zero() -> None:
    """The mean of a block of whole levels: 8 v = 12.5 + 25 k."""
    x = torch.full((1, 1, 8, 8), 200 / 8 / 255)
    x[0, 0, :4] += 25 / 8 / 255  # a mean of 26.5625, 8 of which are 8.5 steps of 25
    table = torch.full((8, 8), 1000.0)
    table[0, 0] = 25
    for dtype in (torch.float32, torch.float64):
        out = FeatureDistillation(table)(x.to(dtype))
        assert torch.allclose(255 * out, torch.full_like(out, 9 * 25 / 8), atol=1e-4)


def test_small_changes_of_a_multiple_are_lost() -> None:
    fd = FeatureDistillation()
    x = fd(0.3 + 0.4 * X)
    noise = torch.rand(X.shape, generator=DRAW, dtype=torch.float64) - 0.5
    assert torch.allclose(fd(x + 3 / 255 * noise), x, atol=1e-12)


def test_the_gradient_is_zero_but_for_the_rounding() -> None:
    x = (0.4 + 0.2 * X).requires_grad_()
    fd = FeatureDistillation()
    (gradient,) = torch.autograd.grad(fd(x).sum(), x)
    assert not gradient.any()
    weight = torch.randn(X.shape, generator=DRAW, dtype=torch.float64)
    out = bpda("transform.quantise")(Preprocessed(fd, nn.Identity()))(x)
    assert torch.equal(out, fd(x.detach()))
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    assert torch.allclose(gradient, weight, rtol=1e-5)  # the rest is the identity


def test_autocast_changes_nothing() -> None:
    x = X.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = FeatureDistillation()(x)
    assert torch.equal(inside, FeatureDistillation()(x))


def test_spread_is_the_standard_deviation_over_blocks() -> None:
    blocks = [
        dctn(255 * X[i, j, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].numpy(), norm="ortho")
        for i, j, r, c in np.ndindex(3, 3, 2, 3)
    ]
    wanted = torch.from_numpy(np.std(blocks, axis=0))
    assert torch.allclose(frequency_spread([X]), wanted)
    assert torch.allclose(frequency_spread(X.split(2)), wanted)


def test_spread_of_single_precision_is_summed_in_double() -> None:
    x = torch.full((4, 1, 64, 64), 0.999)
    assert frequency_spread([x] * 3).max() < 1e-3


def test_two_bands_follow_the_spread() -> None:
    place = torch.arange(8)
    falling = (-(place[:, None] ** 2 + place**2)).double().exp2()
    table = two_bands(falling, sensitive=3, low=5, high=40)
    assert table[0, 0] == table[0, 1] == table[1, 0] == 5
    assert (table == 5).sum() == 3
    assert (two_bands(falling) == 25).sum() == 16
    assert (two_bands(falling, sensitive=0) == 30).all()
    FeatureDistillation(table)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="8x8 steps above 0"):
        FeatureDistillation(torch.ones(4, 4))
    with pytest.raises(ValueError, match="8x8 steps above 0"):
        FeatureDistillation(torch.zeros(8, 8))
    with pytest.raises(ValueError, match="at least one image"):
        frequency_spread([])
    with pytest.raises(ValueError, match="8x8 frequencies"):
        two_bands(torch.ones(64))
    with pytest.raises(ValueError, match="0 to 64"):
        two_bands(torch.ones(8, 8), sensitive=65)
