"""Groups of the barrage that change the colours of each pixel: precision, colour space, contrast, grey scale.

Each takes images (B, 3, H, W) in [0, 1], eight uniform numbers (B, 8) and a field of them (B, 3, H, W), gives images of
the same shape, and treats every image by itself. The ranges are those of the authors' appendix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.defenses.post2018.inputs.barrage.numbers import between, per_channel, whole

__all__ = ["colour_space", "contrast", "grey_scale", "precision"]

_TO_YUV = torch.tensor([[0.299, 0.587, 0.114], [-0.14714, -0.28886, 0.43601], [0.61498, -0.51497, -0.10002]])
_TO_XYZ = torch.tensor([[0.41245, 0.35758, 0.18042], [0.21267, 0.71516, 0.07217], [0.01933, 0.11919, 0.95023]])
_BINS = 256


def precision(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """Values rounded to multiples of 1 / levels, with 8 to 200 levels: for each channel, or for all alike."""
    levels = per_channel(whole(u[:, :3], 8, 200), u[:, 3])
    return (x * levels).round() / levels


def colour_space(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """A random offset in one of two colour spaces: YUV (0.05 at most, 0.02 for U and V) or XYZ of linear light (0.05).

    >>> grey = torch.full((1, 3, 1, 1), 0.5)
    >>> (colour_space(grey, torch.full((1, 8), 0.5), grey) - 0.5).abs().max() < 1e-4
    tensor(True)
    """
    offset = between(u[:, :3], -0.05, 0.05)
    yuv = offset * torch.tensor([1.0, 0.4, 0.4], device=x.device)
    moved = _within(x, _TO_YUV, yuv)
    linear = _within(x.clamp_min(1e-4) ** 2.2, _TO_XYZ, offset).clamp_min(1e-4) ** (1 / 2.2)
    return torch.where((u[:, 3] < 0.5).view(-1, 1, 1, 1), moved, linear)


def _within(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """``x`` moved by ``offset`` (B, 3) in the space that ``matrix`` leads to, clipped to [0, 1]."""
    back = torch.linalg.inv(matrix).to(x.device)
    moved: Tensor = (x + (offset @ back.T)[:, :, None, None]).clamp(0, 1)
    return moved


def contrast(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """Each channel's values equalised in 40 to 256 bins, or stretched between two percentiles: 1 to 4 and 96 to 99.

    >>> ramp = torch.linspace(0, 0.1, 100).view(1, 1, 10, 10).expand(1, 3, 10, 10)
    >>> contrast(ramp, torch.full((1, 8), 0.9), ramp).amax()
    tensor(1.)
    """
    flat = x.flatten(2)
    share = torch.stack((between(u[:, :3], 0.01, 0.04), between(u[:, 3:6], 0.96, 0.99)), 2)
    low, high = flat.sort(2).values.gather(2, (share * (flat.shape[2] - 1)).round().long()).split(1, 2)
    stretched = ((flat - low) / (high - low).clamp_min(1e-3)).clamp(0, 1)
    bins = whole(u[:, 6], 40, _BINS).view(-1, 1, 1)
    index = (flat.detach() * bins).floor().clamp_min(0).minimum(bins - 1).long()
    count = torch.zeros(*flat.shape[:2], _BINS, device=x.device).scatter_add_(2, index, torch.ones_like(flat))
    equalised = (count.cumsum(2) / flat.shape[2]).gather(2, index).to(x.dtype)
    return torch.where((u[:, 7] < 0.5).view(-1, 1, 1), equalised, stretched).view_as(x)


def grey_scale(x: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """A weighted mean of the channels, with random weights, takes the place of all of the colour or of some of it.

    One of four ways: all channels are grey; each keeps a share of its own; two of three are grey; one is in part.

    >>> x = torch.rand(1, 3, 2, 2)
    >>> grey = grey_scale(x, torch.zeros(1, 8).add(0.1), x)
    >>> torch.allclose(grey[:, 0], grey[:, 2])
    True
    """
    weight = u[:, :3] + 1e-3
    grey = (x * (weight / weight.sum(1, keepdim=True))[:, :, None, None]).sum(1, keepdim=True)
    chosen = torch.nn.functional.one_hot((3 * u[:, 6]).long(), 3).to(x.dtype)
    each = u[:, 3:6].clamp_min(0.2)
    ways = torch.stack((torch.zeros_like(each), each, chosen, 1 - chosen * between(u[:, 3:4], 0.1, 0.9)), 1)
    kept = ways[torch.arange(len(x), device=x.device), (4 * u[:, 7]).long()][:, :, None, None].to(x.dtype)
    return kept * x + (1 - kept) * grey
