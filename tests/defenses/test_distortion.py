from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unmask.defenses import distortion
from unmask.defenses.distortion import RandomDistortion, places
from unmask.randomness import make_keys, uniform, use_keys

X = torch.rand(3, 2, 13, 22, generator=torch.Generator().manual_seed(0))


def keyed(transform: RandomDistortion, x: Tensor, rows: list[int] | None = None) -> Tensor:
    with use_keys(make_keys(0, rows or range(len(x)), "test")):
        return transform(x)  # type: ignore[no-any-return]


def pixel_by_pixel(x: Tensor, delta: float, steps: int, nearest: bool) -> np.ndarray:
    """Each pixel by itself, in double precision; for the same draws."""
    with use_keys(make_keys(0, range(len(x)), "test")):
        widths = 1 + delta * (2 * uniform((len(x), 2, steps), like=x).double().numpy() - 1)
    image, out = x.double().numpy(), np.empty(x.shape)
    size = np.array(x.shape[2:])

    def source(of: np.ndarray, i: int, n: int) -> float:
        at = i * steps / n  # cells from the edge
        cell = int(at + 1e-9)
        return float(min((of[:cell].sum() + (at - cell) * of[min(cell, steps - 1)]) * n / steps, n - 1))

    for b, i, j in np.ndindex(len(x), *size):
        r, c = source(widths[b, 0], i, size[0]), source(widths[b, 1], j, size[1])
        if nearest:
            out[b, :, i, j] = image[b, :, round(r), round(c)]
            continue
        top, left = int(r), int(c)
        bottom, right = min(top + 1, size[0] - 1), min(left + 1, size[1] - 1)
        above = image[b, :, top, left] * (1 - (c - left)) + image[b, :, top, right] * (c - left)
        below = image[b, :, bottom, left] * (1 - (c - left)) + image[b, :, bottom, right] * (c - left)
        out[b, :, i, j] = above * (1 - (r - top)) + below * (r - top)
    return out


@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize(("delta", "steps"), [(0.25, 10), (0.9, 4), (0.5, 1), (0.25, 40)])
def test_agrees_with_a_remap_pixel_by_pixel(delta: float, steps: int, nearest: bool) -> None:
    got = keyed(RandomDistortion(delta, steps, nearest), X)
    wanted = torch.from_numpy(pixel_by_pixel(X, delta, steps, nearest)).float()
    assert torch.allclose(got, wanted, atol=1e-5)


def test_places_are_cumulative_widths_cut_off_at_the_edge() -> None:
    widths = torch.tensor([[1.25, 0.75, 1.0, 1.25], [1.25, 1.25, 1.25, 1.25]])
    got = places(widths, 8)
    assert got[0].tolist() == [0, 1.25, 2.5, 3.25, 4, 5, 6, 7]
    assert got[1].tolist() == [0, 1.25, 2.5, 3.75, 5, 6.25, 7, 7]


@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("size", [7, 28, 32, 224, 299])
def test_no_delta_moves_nothing(size: int, nearest: bool) -> None:
    x = torch.rand(2, 1, size, size)
    assert torch.equal(RandomDistortion(0, nearest=nearest)(x), x)


def test_rows_and_columns_and_images_have_draws_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    u = torch.full((2, 2, 2), 0.5)
    u[0, 0] = torch.tensor([1.0, 0.0])  # the rows of the first image only
    monkeypatch.setattr(distortion, "uniform", lambda size, like: u.expand(*size))
    x = torch.arange(8.0).view(1, 1, 8, 1) + 10 * torch.arange(8.0)
    got = RandomDistortion(0.5, 2, nearest=False)(x.expand(2, 1, 8, 8))
    assert torch.equal(got[1:], x)
    assert got[0, 0, :, 0].tolist() == [0, 1.5, 3, 4.5, 6, 6.5, 7, 7]
    assert torch.equal(got[0, 0].diff(dim=1), torch.full((8, 7), 10.0))


def test_widths_are_uniform() -> None:
    n = 4000
    x = torch.arange(9.0).expand(n, 1, 1, 9)
    got = keyed(RandomDistortion(0.3, 9, nearest=False), x)[:, 0, 0]  # cells as wide as pixels
    widths = got[:, 1:5].diff(dim=1)
    assert 0.7 - 1e-5 <= widths.min() < 0.701
    assert 1.299 < widths.max() <= 1.3 + 1e-5
    assert abs(widths.mean() - 1) < 5 * 0.3 / (3 * 3 * n) ** 0.5
    assert widths.std() == pytest.approx(0.3 / 3**0.5, rel=0.03)


@pytest.mark.parametrize("nearest", [True, False])
def test_an_example_does_not_depend_on_the_batch(nearest: bool) -> None:
    transform = RandomDistortion(nearest=nearest)
    whole = keyed(transform, X)
    assert torch.equal(keyed(transform, X[[2, 0]], [2, 0]), whole[[2, 0]])
    assert not torch.equal(transform(X), transform(X))


@pytest.mark.parametrize("nearest", [True, False])
def test_gradient_agrees_with_finite_differences(nearest: bool) -> None:
    x = torch.rand(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: keyed(RandomDistortion(0.5, 3, nearest), x), x)
    assert keyed(RandomDistortion(nearest=nearest), x).dtype == torch.float64


def test_any_strides() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(keyed(RandomDistortion(), x.to(memory_format=torch.channels_last)), keyed(RandomDistortion(), x))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="0 <= delta < 1, not 1"):
        RandomDistortion(1.0)
    with pytest.raises(ValueError, match="at least one step, not 0"):
        RandomDistortion(steps=0)
