"""Small convolutional classifiers."""

from __future__ import annotations

from torch import nn

__all__ = ["conv_net", "strided_net"]


def conv_net(
    channels: int, size: int, widths: tuple[int, int] = (32, 64), hidden: int = 128, classes: int = 10
) -> nn.Sequential:
    """Four 3x3 convolutions, two of stride 2, and two linear layers: (B, channels, size, size) -> (B, classes).

    >>> import torch
    >>> conv_net(1, 28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    first, second = widths
    left = -(-size // 4)
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, first, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(second, second, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * left * left, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def strided_net(
    channels: int, size: int, widths: tuple[int, int] = (32, 64), hidden: int = 256, classes: int = 10
) -> nn.Sequential:
    """Space to depth, two convolutions and two linear layers: cheap enough for adversarial training.

    >>> import torch
    >>> strided_net(1, 28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    first, second = widths
    left = size // 4
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(4 * channels, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * left * left, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
