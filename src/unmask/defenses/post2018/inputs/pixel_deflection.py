"""Pixel deflection: values are replaced by those of random neighbours, and the image is denoised by wavelets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["Deflect", "ShrinkWavelets", "shrunk"]


class Deflect(nn.Module):
    """Replace ``count`` values of each image (B, C, H, W) by values of the same channel nearby.

    The channels take turns; the place is uniform over the image, and its replacement uniform over the places up to
    ``window`` pixels away in each direction that lie inside the image. All are replaced at the same time. Each image
    has draws of its own. Nothing of this is recorded for a gradient.

    >>> Deflect(5, 1)(torch.full((2, 3, 4, 4), 0.5)).unique()
    tensor([0.5000])
    """

    def __init__(self, count: int, window: int) -> None:
        super().__init__()
        if count < 0 or window < 0:
            raise UnmaskError(f"neither {count} deflections nor a window of {window} pixels exist")
        self.count, self.window = count, window

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        u = uniform((len(x), 4, self.count), like=x[:1].float())
        channel = torch.arange(self.count, device=x.device) % x.shape[1]
        place, source = [], []
        for side, at, to in zip(x.shape[2:], (u[:, 0], u[:, 1]), (u[:, 2], u[:, 3]), strict=True):
            here = (at * side).long()
            first, last = (here - self.window).clamp_min(0), (here + self.window).clamp_max(side - 1)
            place.append(here)
            source.append(first + (to * (last - first + 1)).long())
        width, area = x.shape[3], x.shape[2] * x.shape[3]
        target, other = (channel * area + row * width + column for row, column in (place, source))
        flat = x.flatten(1)
        return flat.scatter(1, target, flat.gather(1, other)).view_as(x)


class ShrinkWavelets(nn.Module):
    """Denoise images (B, 3, H, W) in [0, 1] by BayesShrink on Haar wavelets, in luma and chroma.

    Each channel is scaled to [0, 1] first, where the noise is taken to have the standard deviation ``sigma``; the
    result is clipped to [0, 1]. Nothing of this is recorded for a gradient.

    >>> ShrinkWavelets()(torch.full((1, 3, 8, 8), 0.25)).allclose(torch.tensor(0.25))
    True
    """

    to_luma: Tensor

    def __init__(self, sigma: float = 0.04, levels: int = 2) -> None:
        super().__init__()
        self.sigma, self.levels = sigma, levels
        luma = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601; differences from it are blue's and red's
        blue, red = (torch.eye(3)[2] - luma) / 1.772, (torch.eye(3)[0] - luma) / 1.402
        self.register_buffer("to_luma", torch.stack((luma, blue, red)), persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("kc,bchw->bkhw", self.to_luma, x.float())
        low = h.amin((2, 3), keepdim=True)
        span = (h.amax((2, 3), keepdim=True) - low).clamp_min(1e-6)
        h = shrunk((h - low) / span, self.sigma, self.levels) * span + low
        return torch.einsum("ck,bkhw->bchw", self.to_luma.inverse(), h).clamp(0, 1).to(x.dtype)


def shrunk(h: Tensor, sigma: float, levels: int) -> Tensor:
    """Soft thresholds on the details of a Haar transform (Chang, Yu & Vetterli, 2000): (B, C, H, W), sides even.

    On each level, each of the three kinds of detail d has the threshold sigma^2 / sqrt(mean d^2 - sigma^2), for each
    image and channel; where the root is not positive, all of them become 0.

    >>> x = torch.rand(1, 1, 4, 4)
    >>> shrunk(x, 0.0, 2).allclose(x, atol=1e-6)
    True
    """
    if not levels:
        return h
    a, b, c, d = (h[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    coarse = shrunk((a + b + c + d) / 2, sigma, levels - 1)
    vertical, horizontal, diagonal = (
        _soft(detail / 2, sigma) for detail in (a + b - c - d, a - b + c - d, a - b - c + d)
    )
    quarters = (
        coarse + vertical + horizontal + diagonal,
        coarse + vertical - horizontal - diagonal,
        coarse - vertical + horizontal - diagonal,
        coarse - vertical - horizontal + diagonal,
    )
    return F.pixel_shuffle(torch.stack(quarters, 2).flatten(1, 2) / 2, 2)


def _soft(detail: Tensor, sigma: float) -> Tensor:
    signal = (detail.square().mean((2, 3), keepdim=True) - sigma**2).clamp_min(torch.finfo(detail.dtype).eps)
    return detail.sign() * (detail.abs() - sigma**2 / signal.sqrt()).clamp_min(0)
