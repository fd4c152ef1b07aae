from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.defenses.post2018.inputs.matrix_estimation import EstimateMatrix, MaskPixels, MatrixEstimation
from unmask.gradients.bpda import bpda
from unmask.randomness import make_keys, use_keys

N = 400
KEYS = make_keys(0, range(N), "test")


def masked(mask: MaskPixels, value: float = 0.75) -> torch.Tensor:
    """(N, 1, 10, 10): images of one value, masked."""
    with use_keys(KEYS):
        return mask(torch.full((N, 1, 10, 10), value))  # type: ignore[no-any-return]


def test_a_value_is_kept_with_the_mean_probability_and_divided_by_the_share_that_is_kept() -> None:
    """2 * 0.75 - 1 = 0.5 of each kept value; the sum over an image is then that of the image itself."""
    out = masked(MaskPixels(0.2, 0.6).eval())
    kept = (out != 0).float().mean((1, 2, 3))
    assert kept.mean().item() == pytest.approx(0.4, abs=4 * (0.24 / (100 * N)) ** 0.5)
    assert torch.allclose(out.amax((1, 2, 3)), 0.5 / kept)
    assert torch.allclose(out.mean((1, 2, 3)), torch.full((N,), 0.5))


def test_in_training_each_image_has_a_probability_of_its_own() -> None:
    """That of a uniform number in [0, 1) has the variance 1 / 12; of the mean of 100 coins it has 1 / 600 more."""
    kept = (masked(MaskPixels(1e-6, 1.0).train()) != 0).float().mean((1, 2, 3))
    assert kept.mean().item() == pytest.approx(0.5, abs=0.06)
    assert kept.var().item() == pytest.approx(1 / 12 + 1 / 600, rel=0.15)


def test_the_estimate_has_the_largest_singular_values_of_the_channels_side_by_side() -> None:
    x = 0.2 * torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    out = EstimateMatrix(0.4)(x)
    for image, estimate in zip(x, out, strict=True):
        u, s, v = torch.linalg.svd(torch.cat(list(image), 1), full_matrices=False)
        s[2:] = 0
        low = (u * s) @ v
        assert low.abs().max() < 1
        assert torch.allclose(torch.cat(list(2 * estimate - 1), 1), low, atol=1e-5)


def test_a_matrix_of_low_rank_is_recovered_and_values_outside_are_clipped() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 1, 10, 2, generator=generator) @ torch.rand(2, 1, 2, 10, generator=generator) / 2
    assert torch.allclose(EstimateMatrix(0.3)(low), (low + 1) / 2, atol=1e-4)
    assert EstimateMatrix(1.0)(4 * torch.eye(5)[None, None]).max() == 1


def test_the_estimate_has_no_gradient_and_the_view_one_in_every_kept_pixel() -> None:
    model = MatrixEstimation(nn.Flatten(), 0.5, 0.5).eval()
    x = torch.rand(3, 1, 6, 6, requires_grad=True)
    assert not model(x).requires_grad
    bpda("estimate")(model)(x).sum().backward()
    assert x.grad is not None
    assert 0.3 < (x.grad != 0).float().mean() < 0.7


@pytest.mark.parametrize(("low", "high", "rank"), [(0.0, 1.0, 0.8), (0.6, 0.4, 0.8), (0.5, 1.1, 0.8), (0.4, 0.6, 0.0)])
def test_settings_without_meaning_are_refused(low: float, high: float, rank: float) -> None:
    with pytest.raises(ValueError, match=r"are kept with|that stay is"):
        MatrixEstimation(nn.Flatten(), low, high, rank)
