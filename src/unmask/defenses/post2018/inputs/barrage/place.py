"""Groups of the barrage that move pixels or mix neighbours: swirl, zoom, denoising, Fourier, JPEG, noise.

Arguments as in :mod:`unmask.defenses.post2018.inputs.barrage.colour`. Lengths that the authors state for images of 256
pixels scale with the side.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.defenses.post2018.inputs.barrage.numbers import between, per_channel, whole
from unmask.defenses.transforms.jpeg import tables

__all__ = ["denoise", "fourier", "jpeg", "noise", "swirl", "zoom"]

_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_COMPARED = [
    (int(pair[0]), int(pair[1])) for pair in "12 45 78 01 34 67 12 45 78 03 58 47 36 14 25 47 42 64 42".split()
]
_LOW, _HIGH = 55, 95  # of JPEG's quality


def swirl(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """Turned about a random point, by up to 2 radians there and less with the distance: radius 10 to 200 of 256.

    As ``skimage.transform.swirl``: by strength * exp(-distance / r) with r = radius * log(2) / 5.
    """
    side = x.shape[-1]
    y, z = _pixels(x)
    at = u[:, :2] * side
    dy, dz = y - at[:, 0, None, None], z - at[:, 1, None, None]
    radius = between(u[:, 2], 10, 200) * side / 256 * math.log(2) / 5
    angle = (
        between(u[:, 3], 0.01, 2)[:, None, None] * (-(dy.square() + dz.square()).sqrt() / radius[:, None, None]).exp()
    )
    cos, sin = angle.cos(), angle.sin()
    return _sampled(x, at[:, 0, None, None] + cos * dy + sin * dz, at[:, 1, None, None] - sin * dy + cos * dz)


def zoom(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """Cropped by a twentieth to a quarter of the side at each edge, and resized back, bilinear."""
    side = x.shape[-1]
    top, bottom, left, right = whole(u[:, :4], max(1, side // 20), side // 4 - 1).T[:, :, None, None]
    y, z = _pixels(x)
    return _sampled(
        x,
        top + (y + 0.5) * (side - top - bottom) / side - 0.5,
        left + (z + 0.5) * (side - left - right) / side - 0.5,
    )


def _pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """The row (1, H, 1) and the column (1, 1, W) of each pixel."""
    number = torch.arange(x.shape[-1], device=x.device, dtype=torch.float32)
    return number[None, :, None], number[None, None, :]


def _sampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values at (B, H, W) places, bilinear; the edge is repeated outside."""
    side = x.shape[-1]
    rows, columns = torch.broadcast_tensors(rows, columns)
    grid = (2 * torch.stack((columns, rows), 3) + 1) / side - 1
    return F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)


def denoise(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """One of three filters of 3 x 3 for each image: normal weights of a width of 0.1 to 1 pixel, mean, or median."""
    windows = F.pad(x, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)  # (B, 3, H, W, 9)
    distance = torch.tensor([2.0, 1, 2, 1, 0, 1, 2, 1, 2], device=x.device)
    width = per_channel(between(u[:, :3], 0.1, 1), u[:, 3])[..., None]
    weight = (-distance / (2 * width.square())).exp()
    normal = (windows * (weight / weight.sum(4, keepdim=True))).sum(4)
    ways = torch.stack((normal, windows.mean(4), _median(windows)), 1)
    return ways[torch.arange(len(x), device=x.device), (3 * u[:, 7]).long()].clamp(0, 1)


def _median(windows: Tensor) -> Tensor:
    """The fifth of each nine values, by the comparisons of a sorting network: (..., 9) -> (...)."""
    value = list(windows.unbind(-1))
    for i, j in _COMPARED:
        value[i], value[j] = torch.minimum(value[i], value[j]), torch.maximum(value[i], value[j])
    return value[4]


def fourier(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """Every Fourier coefficient times 0.98 to 1.02, and some set to 0.

    With a share s of each channel, in [0, 0.95): the frequencies in rows and columns from s to 1 - s of the side, none
    for s above a half; and in half of the cases each one that is left, with the probability 1 - s.
    """
    side = x.shape[-1]
    share = between(u[:, :3], 0, 0.95)[:, :, None, None]
    number = torch.arange(side, device=x.device)
    first, last = (side * share).floor(), (side * (1 - share)).floor()
    dropped = (number >= first) & (number < last)
    dropped = dropped | dropped.mT | ((field >= share) & (u[:, 3:6] < 0.5)[:, :, None, None])
    factor = between((field * 997) % 1, 0.98, 1.02)
    changed: Tensor = torch.fft.ifft2(torch.fft.fft2(x.float()) * factor * ~dropped).real
    return changed.clamp(0, 1).to(x.dtype)


def jpeg(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """JPEG of quality 55 to 95, with colour at the full resolution: the frequencies of 8 x 8 blocks are rounded.

    On CIFAR-10 it differs from libjpeg by 0.1 to 0.2 of 255 levels on average, where a frequency lies near a half.
    """
    step = _steps().to(x.device)[(whole(u[:, 0], _LOW, _HIGH) - _LOW).long()][:, :, None, :, None, :]
    side = x.shape[-1]
    k = torch.arange(8.0, device=x.device)
    dct = ((2 * k + 1) * k[:, None] * math.pi / 16).cos() / 2
    dct[0] /= math.sqrt(2)
    ycc = torch.einsum("ij,bjhw->bihw", _TO_YCC.to(x.device), (255 * x.float()).round()).round()
    ycc[:, 0] -= 128
    blocks = ycc.view(-1, 3, side // 8, 8, side // 8, 8)
    levels = torch.einsum("ui,bcpiqj,vj->bcpuqv", dct, blocks, dct)
    levels = (levels / step).round() * step
    ycc = torch.einsum("ui,bcpuqv,vj->bcpiqj", dct, levels, dct).reshape(x.shape)
    ycc = ycc.round().clamp(-128, 127) + torch.tensor([128.0, 0, 0], device=x.device).view(3, 1, 1)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_TO_YCC).to(x.device), ycc)
    return (rgb.round().clamp(0, 255) / 255).to(x.dtype)


@lru_cache(maxsize=1)
def _steps() -> Tensor:
    """(qualities, 3, 8, 8): of the frequencies of brightness and of both colours, at each quality."""
    return torch.stack([torch.stack((luma, chroma, chroma)) for luma, chroma in map(tables, range(_LOW, _HIGH + 1))])


def noise(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """One of five kinds, for all channels alike or each by itself: normal, speckle, salt, pepper, salt and pepper.

    Normal noise has the standard deviation 0.1, speckle too, relative to the value; 5 % of the values become 1 or 0.
    """
    own = torch.where((u[:, 0] < 0.5)[:, None, None, None], field, field[:, :1].expand_as(field))
    normal = 0.1 * torch.special.ndtri(own.double().clamp(1e-9, 1 - 1e-9)).to(x.dtype)
    salt, pepper = own < 0.05, own > 0.95
    both = torch.where(own < 0.025, 1.0, torch.where(own > 0.975, 0.0, x))
    ways = torch.stack((x + normal, x + x * normal, x.masked_fill(salt, 1), x.masked_fill(pepper, 0), both), 1)
    return ways[torch.arange(len(x), device=x.device), (5 * u[:, 7]).long()].clamp(0, 1)
