"""Feature distillation: frequencies are rounded so coarsely that small perturbations are meant to be lost."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unmask.defenses.transforms.blocks import SIDE, Round, dct, idct, pad, per_frequency
from unmask.errors import UnmaskError

__all__ = ["FeatureDistillation", "frequency_spread", "two_bands"]

_AWAY = 1 + 2e-6  # halves go away from zero; more than the relative error of float32


class FeatureDistillation(nn.Module):
    """Round the frequencies of each channel: (B, C, H, W) in [0, 1] -> the same shape (Liu et al., CVPR 2019).

    Each channel, as it is (no YCbCr, no shift by 128) and in levels of 0 to 255, is cut into 8x8 blocks; the
    orthonormal DCT of each is rounded to multiples of a table's steps and transformed back, and the result cut
    off at 0 and 255. Unlike in JPEG levels stay fractions. Sides that are not multiples of 8 are filled up by
    repeating the last row and column, and cut back to where they were.

    The rounding is the part ``quantise``: with ``bpda("transform.quantise")`` gradients pass through all the
    rest. Halves go away from zero; numpy's go to the even side, or where the last bit of the transform says.

    Args:
        table: (8, 8), the step of each frequency, in levels, the lowest frequency first; by default that of the
            authors' code, 25 for the lowest 4x4 and 30 for all others. :func:`two_bands` makes such tables.

    Raises UnmaskError for a table that is not 8x8 or has steps that are not positive.

    >>> x = torch.full((1, 3, 8, 8), 0.5)
    >>> (255 * FeatureDistillation()(x)[0, 0, 0, 0]).round(decimals=3).item()  # 41 of 25 / 8
    128.125
    """

    table: Tensor

    def __init__(self, table: Tensor | None = None) -> None:
        super().__init__()
        if table is None:
            table = torch.full((SIDE, SIDE), 30.0)
            table[:4, :4] = 25
        if table.shape != (SIDE, SIDE) or not (table > 0).all():
            raise UnmaskError(f"a table is {SIDE}x{SIDE} steps above 0, not {tuple(table.shape)}: {table.tolist()}")
        self.register_buffer("table", table.detach().float(), persistent=False)
        self.quantise = Round()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            c = dct(pad(255 * x.to(torch.promote_types(x.dtype, torch.float32))))
            rows, steps = per_frequency(c, self.table)
            whole: Tensor = self.quantise(rows * (_AWAY / steps), overwrite=True)
            back = idct((whole * steps).view_as(c))[..., : x.shape[-2], : x.shape[-1]]
            return (back / 255).clamp(0, 1).to(x.dtype)


@torch.no_grad()
def frequency_spread(batches: Iterable[Tensor]) -> Tensor:
    """The standard deviation of each frequency over all 8x8 blocks and channels of a data set: (8, 8), in levels.

    The paper's frequency component analysis: what a frequency contributes to the features that a network
    learns is measured by its spread over natural images.

    Args:
        batches: of images (B, C, H, W) in [0, 1], summed in double precision.

    Raises UnmaskError where there are no images.

    >>> frequency_spread([torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])])[0, :2].round().tolist()
    [1020.0, 0.0]
    """
    count, total, square = 0, torch.zeros(SIDE, SIDE).double(), torch.zeros(SIDE, SIDE).double()
    for x in batches:
        c = dct(pad(255 * x.double())).unflatten(-1, (-1, SIDE)).unflatten(-3, (-1, SIDE))  # (..., 8, W / 8, 8)
        over = [d for d in range(c.ndim) if d not in (c.ndim - 3, c.ndim - 1)]
        count += c.numel() // SIDE**2
        total += c.sum(over).cpu()
        square += c.square().sum(over).cpu()
    if not count:
        raise UnmaskError("the spread of frequencies needs at least one image")
    mean = total / count
    return (square / count - mean.square()).clamp_min(0).sqrt()


def two_bands(spread: Tensor, sensitive: int = 16, low: float = 25, high: float = 30) -> Tensor:
    """The table (8, 8) with the step ``low`` for the frequencies of the widest spread, ``high`` for all others.

    After the paper: frequencies are ranked by their spread; those of the widest are the accuracy sensitive
    band, which a finer step keeps, the rest the malicious defense band, whose coarser step is to remove
    perturbations. Our reading, since the authors' code has none: the band is given by the number of
    its frequencies, 16 as in the published table, and has one step; ties go to the lower frequency. With the
    spread of photographs the band lies about the upper left corner, as the published square does.

    Args:
        spread: (8, 8), see :func:`frequency_spread`.
        sensitive: frequencies in the accuracy sensitive band, 0 to 64.
        low, high: steps in levels. A perturbation moves a frequency by less than half a step to be lost, if
            the frequency was a multiple of its step before, which frequencies of natural images are not.

    Raises UnmaskError for a spread that is not 8x8, or a band of fewer than 0 or more than 64.

    >>> two_bands(torch.arange(64.0).flip(0).view(8, 8), sensitive=2)[0, :3].tolist()
    [25.0, 25.0, 30.0]
    """
    if spread.shape != (SIDE, SIDE):
        raise UnmaskError(f"the spread is that of {SIDE}x{SIDE} frequencies, not {tuple(spread.shape)}")
    if not 0 <= sensitive <= SIDE**2:
        raise UnmaskError(f"a band has 0 to {SIDE**2} frequencies, not {sensitive}")
    table = torch.full((SIDE**2,), float(high))
    table[spread.flatten().argsort(descending=True, stable=True)[:sensitive].cpu()] = float(low)
    return table.view(SIDE, SIDE)
