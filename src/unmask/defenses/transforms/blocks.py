"""Images as blocks of 8x8 pixels, and their frequencies: what JPEG and feature distillation have in common."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["SIDE", "Round", "across", "dct", "down", "idct", "pad", "per_frequency"]

SIDE = 8
"""Pixels a side of a block."""


class Round(nn.Module):
    """To the nearest whole number, elementwise: the part that has no gradient, for BPDA to replace by itself.

    With ``overwrite`` the result may take the place of the input: it saves memory where no gradient is wanted.

    >>> Round()(torch.tensor([1.4, -1.6])).tolist()
    [1.0, -2.0]
    """

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        return x.round_() if overwrite and not x.requires_grad else x.round()


def pad(x: Tensor, rows: int = SIDE, columns: int = SIDE) -> Tensor:
    """(B, C, H, W) with its last row and column repeated until the sides are multiples of ``rows`` and ``columns``.

    >>> pad(torch.ones(1, 3, 9, 16)).shape
    torch.Size([1, 3, 16, 16])
    """
    below, beside = -x.shape[-2] % rows, -x.shape[-1] % columns
    return F.pad(x, (0, beside, 0, below), mode="replicate") if below or beside else x


def across(x: Tensor, matrix: Tensor) -> Tensor:
    """A matrix (8, 8) times each row of each block, taken as a column vector: (..., H, W) -> (..., H, W)."""
    _whole(x)
    return (x.reshape(-1, SIDE) @ matrix.to(x).T).view(x.shape)


def down(x: Tensor, matrix: Tensor) -> Tensor:
    """A matrix (8, 8) times each column of each block: (..., H, W) -> (..., H, W)."""
    _whole(x)
    return (matrix.to(x) @ x.reshape(-1, SIDE, x.shape[-1])).view(x.shape)


def dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of each 8x8 block: (..., H, W) -> (..., H, W).

    A block's 64 coefficients take the place of its pixels, the lowest frequency at the upper left. Since the
    transform is orthonormal, :func:`idct` is its inverse and its transpose.

    Raises UnmaskError for sides that are not multiples of 8; :func:`pad` makes them so.

    >>> dct(torch.ones(8, 8))[0, :2].abs().round(decimals=4).tolist()
    [8.0, 0.0]
    """
    return down(across(x, _COSINES), _COSINES)


def idct(c: Tensor) -> Tensor:
    """The inverse of :func:`dct`: (..., H, W) -> (..., H, W)."""
    return down(across(c, _COSINES.T), _COSINES.T)


def per_frequency(c: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (..., H, W) and a table (8, 8) in shapes that broadcast: (..., H / 8, 8, W) and (8, W)."""
    return c.unflatten(-2, (-1, SIDE)), table.to(c).tile(1, c.shape[-1] // SIDE)


def _whole(x: Tensor) -> None:
    if x.shape[-2] % SIDE or x.shape[-1] % SIDE:
        raise UnmaskError(f"blocks of {SIDE}x{SIDE} need sides that are multiples of {SIDE}, not {tuple(x.shape[-2:])}")


_PLACE = torch.arange(SIDE, dtype=torch.float64)
_COSINES = torch.cos(math.pi / SIDE * (_PLACE + 0.5) * _PLACE[:, None]) / 2  # row k holds the k-th cosine
_COSINES[0] *= math.sqrt(0.5)
