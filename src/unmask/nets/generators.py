"""Generators of images from latent codes, and the critics that they are trained against."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["conv_critic", "conv_generator"]


def conv_generator(latent: int, width: int = 64) -> nn.Sequential:
    """The generator of Defense-GAN for 28x28 (Samangouei et al., ICLR 2018): (B, latent) -> (B, 1, 28, 28).

    4x4 -> 8x8, cut to 7x7 -> 14x14 -> 28x28 by transposed 5x5 convolutions, ``width`` channels at the last.

    >>> import torch
    >>> conv_generator(128, 8)(torch.zeros(2, 128)).shape
    torch.Size([2, 1, 28, 28])
    """
    return nn.Sequential(
        nn.Linear(latent, 4 * width * 16),
        nn.ReLU(),
        nn.Unflatten(1, (4 * width, 4, 4)),
        # 8x8 cut to 7x7: an output padding of 0 leaves out the last row and column
        nn.ConvTranspose2d(4 * width, 2 * width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 5, stride=2, padding=2, output_padding=1),
        nn.ReLU(),
        _Doubling(width, 1, 5, stride=2, padding=2, output_padding=1),
        nn.Sigmoid(),
    )


class _Doubling(nn.ConvTranspose2d):
    """That transposed convolution, 5x5 of stride 2, as a 3x3 convolution a corner: quicker where channels are few."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        corners = F.pad(self.weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
        kernels = corners.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, kernels, bias, padding=1), 2)


def conv_critic(width: int = 64) -> nn.Sequential:
    """(B, 1, 28, 28) -> (B, 1): 5x5 convolutions of stride 2, no normalisation, as WGAN-GP needs."""
    return nn.Sequential(
        nn.Conv2d(1, width, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(4 * width * 16, 1),
    )
