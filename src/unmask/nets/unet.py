"""A U-Net that tells the noise in an image: the network of denoising diffusion."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

__all__ = ["TimedBlock", "UNet"]

_FREQUENCIES = 32


class TimedBlock(nn.Module):
    """Two 3x3 convolutions with a skip; the time scales and shifts what is between them.

    (B, before, H, W) and an embedding (B, embedding) -> (B, after, H, W). Without a time, ``embedding`` is 0, and
    ``forward`` takes the features alone.
    """

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.norm = nn.GroupNorm(8, after)
        self.time = nn.Linear(embedding, 2 * after) if embedding else None
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, h: Tensor, embedded: Tensor | None = None) -> Tensor:
        between = self.norm(self.first(h))
        if self.time is not None:
            scale, shift = self.time(embedded)[:, :, None, None].chunk(2, 1)
            between = between * (1 + scale) + shift
        out: Tensor = self.skip(h) + self.second(between)
        return out


class UNet(nn.Module):
    """Noise (B, channels, H, W) in noisy images of that shape at times (B,), after Ho et al. (NeurIPS 2020).

    Squares of 2x2 pixels are channels of its input and its output, so that the widest maps have half the side: a third
    of the work, for the same sharpness. No attention.

    Args:
        channels: of the images.
        widths: channels of each stage; the side is halved between stages.
        embedding: length of the embedding of the time; 0 for a network that is given no time.

    >>> UNet(widths=(8, 16))(torch.rand(2, 3, 32, 32), torch.tensor([1.0, 100.0])).shape
    torch.Size([2, 3, 32, 32])
    >>> UNet(widths=(8, 16), embedding=0)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, channels: int = 3, widths: tuple[int, ...] = (48, 96), embedding: int = 128) -> None:
        super().__init__()
        self.embed = _embedding(embedding) if embedding else None
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, widths[0], 3, padding=1))
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.before = nn.ModuleList(TimedBlock(width, width, embedding) for width in widths)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in reversed(pairs))
        self.after = nn.ModuleList(TimedBlock(2 * a, a, embedding) for a, _ in reversed(pairs))
        last = nn.Conv2d(widths[0], 4 * channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.head = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), last, nn.PixelShuffle(2))

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        embedded = None
        if self.embed is not None:
            assert time is not None, "this network is given the time"
            embedded = self.embed(_waves(time).to(x.dtype))
        h, kept = self.stem(x), []
        for i, block in enumerate(self.before):
            if i:
                kept.append(h)
                h = self.down[i - 1](h)
            h = block(h, embedded)
        for up, block in zip(self.up, self.after, strict=True):
            h = block(torch.cat((up(h), kept.pop()), 1), embedded)
        noise: Tensor = self.head(h)
        return noise


def _embedding(length: int) -> nn.Sequential:
    """Waves (B, 64) -> (B, length)."""
    return nn.Sequential(nn.Linear(2 * _FREQUENCIES, length), nn.SiLU(), nn.Linear(length, length), nn.SiLU())


def _waves(time: Tensor) -> Tensor:
    """Sines and cosines (B, 64) of times (B,), of periods from 2 pi to 20000 pi."""
    frequencies = torch.exp(torch.arange(_FREQUENCIES, device=time.device) * (-math.log(10000) / _FREQUENCIES))
    angles = time.float()[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)
