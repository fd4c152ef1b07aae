from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from unmask.defenses.transforms.blocks import Round, across, dct, down, idct, pad, per_frequency

X = torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def block_by_block(x: Tensor) -> Tensor:
    out = x.numpy().copy()
    for at in np.ndindex(*x.shape[:-2], x.shape[-2] // 8, x.shape[-1] // 8):
        place = (*at[:-2], slice(8 * at[-2], 8 * at[-2] + 8), slice(8 * at[-1], 8 * at[-1] + 8))
        out[place] = dctn(out[place], norm="ortho")
    return torch.from_numpy(out)


def test_agrees_with_scipy_block_by_block() -> None:
    assert torch.allclose(dct(X), block_by_block(X), atol=1e-12)
    assert torch.allclose(dct(X.float()), block_by_block(X).float(), atol=1e-5)
    assert torch.allclose(dct(X.mT), block_by_block(X.mT.contiguous()), atol=1e-12)  # any strides


def test_a_cosine_is_one_coefficient() -> None:
    place = torch.arange(8, dtype=torch.float64)
    wave = torch.outer(*(torch.cos(math.pi / 8 * (place + 0.5) * k) for k in (3, 5)))
    wanted = torch.zeros(8, 8).double()
    wanted[3, 5] = 4  # sqrt(8 / 2) a side
    assert torch.allclose(dct(wave), wanted, atol=1e-12)


def test_the_inverse_and_the_norm() -> None:
    assert torch.allclose(idct(dct(X)), X, atol=1e-12)
    assert torch.allclose(dct(X).norm(), X.norm())


def test_gradients() -> None:
    x = X[:1, :1, :8].clone().requires_grad_()
    assert torch.autograd.gradcheck(dct, x)
    assert torch.autograd.gradcheck(idct, x)


def test_rows_and_columns_of_blocks() -> None:
    matrix = torch.rand(8, 8, dtype=torch.float64)
    block = X[0, 0, 8:16, 8:16]
    assert torch.allclose(across(X, matrix)[0, 0, 8:16, 8:16], block @ matrix.T)
    assert torch.allclose(down(X, matrix)[0, 0, 8:16, 8:16], matrix @ block)


def test_padding_repeats_the_edge() -> None:
    x = X[..., :17, :9]
    padded = pad(x)
    assert padded.shape == (2, 3, 24, 16)
    assert torch.equal(padded[..., :17, :9], x)
    assert torch.equal(padded[..., 17:, :9], x[..., 16:, :].expand(-1, -1, 7, -1))
    assert torch.equal(padded[..., 9:], padded[..., 8:9].expand(-1, -1, -1, 7))
    assert pad(X) is X
    assert pad(x, 2, 3).shape == (2, 3, 18, 9)


def test_a_table_meets_each_block() -> None:
    table = torch.arange(64.0).view(8, 8)
    rows, steps = per_frequency(X, table)
    product = (rows * steps).view_as(X)
    assert torch.allclose(product[1, 2, 16:, 8:], X[1, 2, 16:, 8:] * table)
    assert product.dtype == X.dtype


def test_rounding_overwrites_only_where_no_gradient_is_wanted() -> None:
    x = torch.tensor([0.6])
    assert Round()(x, overwrite=True) is x
    y = torch.tensor([0.6], requires_grad=True) * 1
    assert Round()(y, overwrite=True).item() == 1
    assert y.item() == pytest.approx(0.6)


@pytest.mark.parametrize("shape", [(1, 1, 9, 8), (1, 1, 8, 12)])
def test_broken_blocks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        dct(torch.zeros(shape))
