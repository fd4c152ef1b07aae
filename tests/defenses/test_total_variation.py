from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from unmask.defenses.transforms import total_variation
from unmask.defenses.transforms.total_variation import MinimiseTotalVariation, minimise
from unmask.randomness import make_keys, use_keys


def objective(u: Tensor, x: Tensor, kept: Tensor, weight: float) -> Tensor:
    """(B,), as defined."""
    error = ((u - x).square() * kept).flatten(1).sum(1)
    return error + weight * sum(u.diff(dim=dim).abs().flatten(1).sum(1) for dim in (2, 3))


def bregman(x: Tensor, kept: Tensor, weight: float, sweeps: int) -> Tensor:
    """Split Bregman of one channel (H, W), the usual algorithm: Gauss-Seidel sweeps in raster order."""
    w = 2 / weight
    height, width = x.shape
    f, keep, u = x.double().numpy(), kept.numpy(), (x * kept).double().numpy().copy()
    d, b = np.zeros((2, height, width)), np.zeros((2, height, width))  # of the edge to the next row, and column
    lam = w / 2
    for _ in range(sweeps):
        for i in range(height):
            for j in range(width):
                near = []
                if i > 0:
                    near.append(u[i - 1, j] + d[0, i - 1, j] - b[0, i - 1, j])
                if i < height - 1:
                    near.append(u[i + 1, j] - d[0, i, j] + b[0, i, j])
                if j > 0:
                    near.append(u[i, j - 1] + d[1, i, j - 1] - b[1, i, j - 1])
                if j < width - 1:
                    near.append(u[i, j + 1] - d[1, i, j] + b[1, i, j])
                pull = w if keep[i, j] else 0.0
                u[i, j] = (lam * sum(near) + pull * f[i, j]) / (lam * len(near) + pull)
        for axis, slope in enumerate((np.diff(u, axis=0), np.diff(u, axis=1))):
            part = np.s_[axis, : slope.shape[0], : slope.shape[1]]
            v = slope + b[part]
            b[part] = v.clip(-1 / lam, 1 / lam)
            d[part] = v - b[part]
    return torch.from_numpy(u)


def scene(n: int = 2, channels: int = 2, side: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, side, side, generator=generator, dtype=torch.float64)
    x[..., side // 2 :] /= 3
    return x, torch.rand(n, 1, side, side, generator=generator) < 0.5


def test_reaches_the_minimum_that_raster_gauss_seidel_converges_to() -> None:
    x, kept = scene(1, 1)
    u = minimise(x, kept, 0.1, steps=4000, tolerance=1e-9)
    usual = bregman(x[0, 0], kept[0, 0], 0.1, 400)[None, None]
    ours, theirs = objective(u, x, kept, 0.1), objective(usual, x, kept, 0.1)
    assert ours <= theirs + 1e-6
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert torch.allclose(torch.where(kept, u, 0), torch.where(kept, usual, 0), atol=1e-3)  # there it is unique


def test_a_dual_point_proves_the_minimum() -> None:
    """u is a minimum if and only if some p in [-1, 1] has 2 (u - x) on what is kept = -weight * transpose(D) p."""
    x, kept = scene(1, 1, 8)
    weight = 0.2
    u = minimise(x, kept, weight, steps=5000, tolerance=1e-10)[0, 0].numpy()
    n = u.size
    grid = np.arange(n).reshape(u.shape)
    edges = [
        *zip(grid[:-1].ravel(), grid[1:].ravel(), strict=True),
        *zip(grid[:, :-1].ravel(), grid[:, 1:].ravel(), strict=True),
    ]
    d = np.zeros((len(edges), n))
    for row, (here, after) in enumerate(edges):
        d[row, here], d[row, after] = -1, 1
    slope = d @ u.ravel()
    bounds = [(1, 1) if s > 1e-5 else (-1, -1) if s < -1e-5 else (-1, 1) for s in slope]
    wanted = (-2 / weight * (u - x[0, 0].numpy()) * kept[0, 0].numpy()).ravel()
    # least largest residual r: |transpose(D) p - wanted| <= r
    ones = np.ones((n, 1))
    constraints = np.block([[d.T, -ones], [-d.T, -ones]])
    found = linprog([0] * len(edges) + [1], constraints, np.concatenate([wanted, -wanted]), bounds=[*bounds, (0, None)])
    assert found.fun < 1e-3


def test_closed_forms() -> None:
    everything = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    flat = torch.full((1, 2, 4, 6), 0.3)
    assert torch.allclose(minimise(flat, everything), flat, atol=1e-6)
    step = torch.cat((torch.zeros(1, 1, 4, 3), torch.ones(1, 1, 4, 3)), 3)
    # each half is 3 columns, pulled by weight / 2 per row: (weight / 2) / 3 towards the other
    found = minimise(step, everything, weight=0.3, steps=1000, tolerance=0)
    assert torch.allclose(found, 0.05 + 0.9 * step, atol=1e-4)
    heavy = minimise(step, everything, weight=100, steps=20_000, tolerance=0)
    assert torch.allclose(heavy, torch.tensor(0.5), atol=1e-3)


def test_what_is_not_kept_is_ignored_and_filled_in() -> None:
    x, kept = scene()
    other = torch.where(kept, x, 1 - x)
    assert torch.equal(minimise(x, kept), minimise(other, kept))
    flat = torch.full_like(x, 0.7)
    assert torch.allclose(minimise(torch.where(kept, flat, 0), kept, steps=500, tolerance=1e-7), flat, atol=1e-4)
    nothing = minimise(x, torch.zeros_like(kept))
    assert torch.isfinite(nothing).all()
    one = torch.zeros_like(kept)
    one[:, :, 3, 4] = True
    assert torch.allclose(minimise(x, one), x[:, :, 3:4, 4:5].expand_as(x), atol=1e-6)


def test_the_default_ends_near_the_minimum() -> None:
    x, kept = scene(3, 3, 24)
    best = objective(minimise(x, kept, steps=4000, tolerance=1e-9), x, kept, 0.03)
    assert (objective(minimise(x, kept), x, kept, 0.03) < 1.1 * best).all()
    assert (objective(minimise(x, kept, tolerance=1e-4), x, kept, 0.03) < 1.01 * best).all()


def test_an_image_does_not_depend_on_the_batch() -> None:
    x = scene(7)[0].float()
    x[2] = 0.5  # converges before the others
    rows = torch.tensor([5, 2])
    for values in (None, 1, 600):
        defense = MinimiseTotalVariation(values=values)
        with use_keys(make_keys(0, range(7), "test")):
            whole = defense(x)
        with use_keys(make_keys(0, rows, "test")):
            assert torch.allclose(defense(x[rows]), whole[rows], atol=1e-6)
    with use_keys(make_keys(1, range(7), "test")):
        assert not torch.allclose(defense(x), whole, atol=0.01)


def test_pixels_are_kept_in_all_channels_by_a_coin(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[Tensor] = []

    def recorded(x: Tensor, kept: Tensor, *settings: float) -> Tensor:
        masks.append(kept)
        return x

    monkeypatch.setattr(total_variation, "minimise", recorded)
    MinimiseTotalVariation(keep=0.3)(torch.rand(50, 3, 20, 20))
    mask = torch.cat(masks)
    assert mask.shape == (50, 1, 20, 20)
    assert mask.float().mean() == pytest.approx(0.3, abs=4 * (0.21 / mask.numel()) ** 0.5)
    assert not torch.equal(mask[0], mask[1])


def test_dtype_is_kept_and_the_input_untouched() -> None:
    x, _ = scene()
    for dtype in (torch.float16, torch.float32, torch.float64):
        image = x.to(dtype).requires_grad_()
        found = MinimiseTotalVariation()(image)
        assert found.dtype == dtype
        assert not found.requires_grad
        assert torch.equal(image, x.to(dtype))
    assert MinimiseTotalVariation()(x[:0]).shape == x[:0].shape
    assert MinimiseTotalVariation(keep=1)(x[..., :1, :1]).shape == (2, 2, 1, 1)


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"keep": 1.1}, {"weight": 0}, {"steps": 0}, {"tolerance": -1}, {"values": 0}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        MinimiseTotalVariation(**wrong)  # type: ignore[arg-type]


def test_a_mask_of_another_form_is_refused() -> None:
    x, kept = scene()
    for wrong in (kept.float(), kept[:1], kept.expand_as(x)):
        with pytest.raises(ValueError, match="kept must be bool"):
            minimise(x, wrong)
