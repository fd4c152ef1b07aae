"""A small residual network for 32x32 images, quick to train on a few cores."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["Residual", "Whitening", "residual_net"]


class Whitening(nn.Conv2d):
    """A fixed 2x2 convolution whose filters whiten image patches: (B, channels, H, W) -> (B, 2 * directions, H-1, W-1).

    The filters are the leading eigenvectors of the patches' covariance, each divided by its standard
    deviation, and their negatives, so that a ReLU behind it loses nothing. They are set by :meth:`fit`
    from data and are not trained; the bias is. See Jordan, *94% on CIFAR-10 in 3.29 seconds on a
    single GPU* (2024), who credits Page (2019).

    >>> layer = Whitening(3, 12)
    >>> layer.fit(torch.rand(64, 3, 8, 8))
    >>> layer(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 24, 31, 31])
    """

    def __init__(self, channels: int, directions: int) -> None:
        if not 0 < directions <= 4 * channels:
            raise UnmaskError(f"patches of {channels} channels have 1 to {4 * channels} directions, not {directions}")
        super().__init__(channels, 2 * directions, 2)
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the filters from inputs (N, channels, H, W) and the bias to 0."""
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for images in x.double().split(100):
            patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1)
            count, total, products = count + len(patches), total + patches.sum(0), products + patches.T @ patches
        mean = total / count
        values, vectors = torch.linalg.eigh(products / count - mean.outer(mean))
        directions = len(self.weight) // 2
        filters = (vectors / (values.clamp_min(0) + 5e-4).sqrt()).flip(1).T[:directions]
        self.weight.copy_(torch.cat((filters, -filters)).view_as(self.weight))
        self.bias.zero_()  # type: ignore[union-attr]


class Residual(nn.Sequential):
    """A body whose output is added to its input."""

    def forward(self, input: Tensor) -> Any:
        return input + super().forward(input)  # type: ignore[no-untyped-call]


def residual_net(
    channels: int = 3,
    widths: tuple[int, ...] = (64, 128, 256),
    whitening: int = 12,
    classes: int = 10,
    *,
    strided: bool = False,
) -> nn.Sequential:
    """A stem, then stages that halve the side and end in a residual block: (B, channels, H, W) -> (B, classes).

    After the ResNet-9 of Page, *How to train your ResNet* (2019).

    Args:
        channels: of the input.
        widths: channels of each stage.
        whitening: directions of the whitening stem; 0 has an ordinary trained 3x3 stem instead.
        strided: halve the side by convolutions of stride 2, for half the work, instead of by pooling.

    >>> residual_net(widths=(8, 8, 16))(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if whitening:
        before, stem = 2 * whitening, nn.Sequential(Whitening(channels, whitening), nn.ReLU())
    else:
        before, stem = widths[0] // 2, _convolution(channels, widths[0] // 2)
    stages = []
    for width in widths:
        stages.append(
            nn.Sequential(
                _convolution(before, width, stride=2) if strided else _convolution(before, width, pool=True),
                Residual(_convolution(width, width), _convolution(width, width)),
            )
        )
        before = width
    return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def _convolution(before: int, after: int, *, stride: int = 1, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, stride, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.BatchNorm2d(after), nn.ReLU())
