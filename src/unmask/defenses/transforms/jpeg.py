"""JPEG compression and back, as libjpeg does it, batched: its roundings kill the gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.defenses.transforms.bit_depth import SLACK
from unmask.defenses.transforms.blocks import Round, across, down, pad, per_frequency
from unmask.errors import UnmaskError

__all__ = ["JPEG", "tables"]

# ITU-T T.81, tables K.1 and K.2: the step of each frequency at quality 50.
_LUMA = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
 18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
 99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99"""

# JFIF: RGB to Y, Cb, Cr and back, in libjpeg's 65536ths: sums of levels are exact in float32.
_TO_YCC = torch.tensor([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 65536
_TO_RGB = torch.tensor([[0, 91881], [-22554, -46802], [116130, 0]]) / 65536

# The DCT, each row times the root of 8, in the 8192ths that the fixed point factors of libjpeg's "islow" amount to.
_HALVES = [
    [8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260],
    [10703, 4433, -4433, -10703],
    [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633],
    [4433, -10704, 10704, -4433],
    [2260, -6436, 9633, -11363],
]
_DCT = torch.tensor([half + [(-1) ** k * value for value in half[::-1]] for k, half in enumerate(_HALVES)]) / 8192
_ROWS, _COLUMNS = 4 * _DCT, _DCT / 4  # there, quarters of a level between the two; together 8 times the coefficient
_COLUMNS_BACK, _ROWS_BACK = 4 * _DCT.T, _DCT.T / 32

# Which way exact halves go, in what is rounded: more than the errors of float32, less than what differs otherwise.
_UP_DOWN_DOWN = torch.tensor([1, -1, -1]).view(3, 1, 1) * 2.0**-17
_UP_COEFFICIENTS, _UP_LEVELS = 2.0**-12, 2.0**-16
_AWAY = 1 + 1e-5

_AT_ONCE = 4  # images that a processor works on, whose planes find room in its cache


def tables(quality: int) -> tuple[Tensor, Tensor]:
    """Steps (8, 8) of the frequencies of brightness and of colour at a quality of 1 to 100, in levels.

    The standard's tables, scaled as the Independent JPEG Group does. Raises UnmaskError for another quality.

    >>> tables(75)[0][0].tolist()
    [8.0, 6.0, 5.0, 8.0, 12.0, 20.0, 26.0, 31.0]
    """
    if not 1 <= quality <= 100:
        raise UnmaskError(f"a JPEG quality is 1 to 100, not {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (torch.tensor([int(step) for step in text.split()]).view(8, 8) for text in (_LUMA, _CHROMA))
    luma, chroma = (((table * percent + 50) // 100).clamp(1, 255).float() for table in (luma, chroma))
    return luma, chroma


class JPEG(nn.Module):
    """Compress as JPEG and decompress: (B, C, H, W) in [0, 1] -> the same shape; C is 1 or 3 (Guo et al., ICLR 2018).

    What Pillow does by default (baseline, colour at half the resolution): values become levels of 0 to 255 by
    truncation, as in the published code; RGB to YCbCr; colour is averaged over 2x2; 8x8 blocks, their
    frequencies rounded to multiples of a table's steps; and back, colour interpolated linearly ("fancy
    upsampling"). Intermediate results are rounded where libjpeg's integers are, so that the result is Pillow's
    but for single coefficients which float32 rounds to the other side. Over 400 photographs of 224x224 and
    Pillow 13 (libjpeg-turbo 3) these shares of the values are equal, and the others differ by 1 or 2 levels,
    save one in 50,000, and by 14 at most: 99.991 % at quality 25, 99.986 % at 75, 99.966 % at 95.

    Every rounding is the part ``quantise``: with ``bpda("transform.quantise")`` gradients pass through
    everything but the roundings, with ``bpda("transform")`` around the whole.

    Args:
        quality: 1 to 100.

    Raises UnmaskError for another quality, and for images of 2 or more than 3 channels.

    >>> x = torch.full((1, 3, 20, 20), 0.6)
    >>> JPEG(75)(x).unique().tolist() == x.unique().tolist()
    True
    """

    luma: Tensor
    chroma: Tensor

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        self.quality = quality
        luma, chroma = tables(quality)
        self.register_buffer("luma", luma, persistent=False)
        self.register_buffer("chroma", chroma, persistent=False)
        self.quantise = Round()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise UnmaskError(f"JPEG takes images (B, 1, H, W) or (B, 3, H, W), not {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            pieces = x.split(_AT_ONCE if x.device.type == "cpu" else len(x)) if len(x) else ()
            return torch.cat([x[:0], *(self._compressed(piece) for piece in pieces)])

    def _compressed(self, x: Tensor) -> Tensor:
        fine = x.to(torch.promote_types(x.dtype, torch.float32))
        levels = self._round(torch.add(fine.new_tensor(SLACK - 128.5), fine, alpha=255))  # less 128, truncated
        back = self._plane(levels, self.luma) if x.shape[1] == 1 else self._colour(levels)
        return back.div_(255).to(x.dtype)

    def _colour(self, rgb: Tensor) -> Tensor:
        """Levels less 128 of RGB, (B, 3, H, W), to levels after compression and decompression."""
        height, width = rgb.shape[-2:]
        ycc = _mix(_TO_YCC, pad(rgb, 2, 16))  # libjpeg widens before it halves, but lengthens after
        ycc = self._round(ycc.add_(_UP_DOWN_DOWN.to(ycc)))
        y = self._plane(ycc[:, :1, :height, :width], self.luma)
        colour = self._plane(self._halved(ycc[:, 1:]), self.chroma).sub_(128)
        colour = self._doubled(colour[..., : (height + 1) // 2, : (width + 1) // 2])[..., :height, :width]
        return self._round(_mix(_TO_RGB, colour).add_(y)).clamp_(0, 255)

    def _plane(self, x: Tensor, table: Tensor) -> Tensor:
        """Levels less 128, (B, C, H, W), to levels after compression and decompression.

        As libjpeg does, a block's transform goes along one side, then the other, with roundings after each.
        """
        rows = self._round(across(pad(x), _ROWS))
        eightfold, steps = per_frequency(self._round(down(rows, _COLUMNS).add_(_UP_COEFFICIENTS)), table)
        c = self._round(eightfold * (_AWAY / 8 / steps)) * steps
        columns = self._round(down(c.view_as(rows), _COLUMNS_BACK))
        back = self._round(across(columns, _ROWS_BACK).add_(128 + _UP_LEVELS)).clamp_(0, 255)
        return back[..., : x.shape[-2], : x.shape[-1]]

    def _halved(self, x: Tensor) -> Tensor:
        """Means of 2x2; halves go down and up in turn, from column to column."""
        rows = x[..., ::2, :] + x[..., 1::2, :]
        sums = rows[..., ::2] + rows[..., 1::2]
        return self._round(torch.add(_in_turn(-1 / 8, sums), sums, alpha=1 / 4))

    def _doubled(self, x: Tensor) -> Tensor:
        """Each value between its neighbours, 3 to 1; halves go up and down in turn, from column to column."""
        if x.shape[-1] <= 2:  # libjpeg repeats the values of images this narrow
            return F.interpolate(x, scale_factor=2, mode="nearest")
        padded = F.pad(x, (0, 0, 1, 1), mode="replicate")
        above, here, below = (padded.narrow(2, i, x.shape[2]) for i in range(3))
        rows = torch.stack([torch.lerp(here, above, 1 / 4), torch.lerp(here, below, 1 / 4)], 3).flatten(2, 3)
        twice = F.interpolate(rows.flatten(0, 2)[None], scale_factor=2, mode="linear", align_corners=False)
        return self._round(twice.view(*rows.shape[:3], -1).add_(_in_turn(1 / 32, twice)))

    def _round(self, x: Tensor) -> Tensor:
        """Of a tensor that nobody else uses."""
        rounded: Tensor = self.quantise(x, overwrite=True)
        return rounded


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """Linear combinations of the channels: (D, C) and (B, C, H, W) -> (B, D, H, W)."""
    mixed = matrix.to(x) @ x.flatten(2)
    return mixed.view(*mixed.shape[:2], *x.shape[2:])


def _in_turn(value: float, like: Tensor) -> Tensor:
    """(W,): value, -value, value, ..."""
    return torch.tensor([value, -value]).to(like).repeat(like.shape[-1] // 2 + 1)[: like.shape[-1]]
