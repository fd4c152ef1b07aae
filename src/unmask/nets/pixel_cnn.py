"""A density of images, pixel after pixel in raster order: a gated PixelCNN."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.nets.logistic_mixture import log_likelihood, numbers, scaled

__all__ = ["PixelCNN", "Rows"]


class PixelCNN(nn.Module):
    """Each pixel's distribution given those before it, for images of any size.

    Two stacks of gated residual convolutions, as in van den Oord et al., *Conditional Image Generation with
    PixelCNN Decoders* (NeurIPS 2016): one sees the rows above, the other the pixels to the left and, in
    every layer, what the first made of the rows above. The output is that of PixelCNN++
    (:mod:`unmask.nets.logistic_mixture`), whose channels depend on one another within the pixel, so that
    no layer needs to be masked channel by channel.

    Args:
        channels: of the images.
        width: channels of the layers.
        above, left: layers of the two stacks.
        components: of each pixel's mixture.

    >>> net = PixelCNN(1, width=8, above=2, left=2, components=3)
    >>> net(torch.zeros(2, 1, 4, 6, dtype=torch.long)).shape
    torch.Size([2, 4, 6, 9])
    """

    def __init__(self, channels: int = 3, width: int = 32, above: int = 8, left: int = 4, components: int = 5) -> None:
        super().__init__()
        self.channels = channels
        self.from_above = nn.Conv2d(channels + 1, width, (2, 5), padding=(2, 2))
        self.above = nn.ModuleList(nn.Conv2d(width, 2 * width, (2, 3), padding=(1, 1)) for _ in range(above))
        self.from_left = nn.Conv2d(channels + 1, width, (1, 3), padding=(0, 3))
        self.left = nn.ModuleList(nn.Conv2d(width, 2 * width, (1, 3), padding=(0, 2)) for _ in range(left))
        self.between = nn.ModuleList(nn.Conv2d(width, out, 1) for out in (width, *[2 * width] * left))
        self.head = nn.Conv2d(width, numbers(channels, components), 1)

    def forward(self, levels: Tensor) -> Tensor:
        """Levels (B, C, H, W), 0 to 255 -> parameters (B, H, W, P) of each pixel's distribution."""
        x = _marked(levels.to(self.head.weight.dtype), 1).contiguous(memory_format=torch.channels_last)
        height, side = x.shape[2:]
        above = self.from_above(x)[:, :, :height]  # of the rows before, as all that is cut off here looks further on
        for layer in self.above:
            above = above + F.glu(layer(F.elu(above))[:, :, :height], 1)
        above = F.elu(above)
        left = self.from_left(x)[..., :side] + self.between[0](above)
        for layer, condition in zip(self.left, self.between[1:], strict=True):
            left = left + F.glu(layer(F.elu(left))[..., :side] + condition(above), 1)
        parameters: Tensor = self.head(F.elu(left)).permute(0, 2, 3, 1)
        return parameters

    def bits_per_dim(self, levels: Tensor) -> Tensor:
        """Mean negative log likelihood (B,) of images (B, C, H, W), in bits per pixel and channel."""
        nats = log_likelihood(self(levels), levels.permute(0, 2, 3, 1)).flatten(1).sum(1)
        return -nats / (levels[0].numel() * math.log(2))


class Rows:
    """The same distributions, one row of the images after another, what the rows above give kept.

    ``below(row)`` goes on to the next row, given the levels (B, W, C) of the last (None before the first);
    ``parameters(condition, row)`` evaluates a row, for some or all of the images.

    >>> net = PixelCNN(1, width=8, above=2, left=2, components=3)
    >>> levels = torch.randint(256, (2, 1, 4, 6))
    >>> rows, row = Rows(net, 2, 6), None
    >>> for r in range(4):
    ...     condition, row = rows.below(row), levels[:, :, r].movedim(1, -1)
    >>> torch.allclose(rows.parameters(condition, row), net(levels)[:, 3], atol=1e-5)
    True
    """

    def __init__(self, net: PixelCNN, batch: int, side: int) -> None:
        like = net.head.weight
        width = net.from_above.out_channels
        self._from_above, self._from_left, self._head = (
            _matrix(layer) for layer in (net.from_above, net.from_left, net.head)
        )
        weights, biases = zip(*map(_matrix, net.between), strict=True)
        self._between = torch.cat(weights, 1), torch.cat(biases)
        self._above, self._left = [_matrix(layer) for layer in net.above], [_matrix(layer) for layer in net.left]
        self._sizes = (width, *[2 * width] * len(net.left))
        self._pixels = like.new_zeros(batch, 2, side + 4, net.channels + 1)
        self._last = [like.new_zeros(batch, side + 2, width) for _ in net.above]

    def below(self, row: Tensor | None) -> Tensor:
        """What all layers of the left stack take from above in the next row: (B, W, n)."""
        if row is not None:
            pixels = F.pad(_marked(row.to(self._pixels.dtype), -1), (0, 0, 2, 2))
            self._pixels = torch.stack((self._pixels[:, 1], pixels), 1)
        above = _apply(self._from_above, _columns(self._pixels, 5))
        for i, layer in enumerate(self._above):
            now = F.pad(F.elu(above), (0, 0, 1, 1))
            above = above + F.glu(_apply(layer, _columns(torch.stack((self._last[i], now), 1), 3)), -1)
            self._last[i] = now
        return _apply(self._between, F.elu(above))

    def parameters(self, condition: Tensor, row: Tensor) -> Tensor:
        """Of what is in a row: condition (b, W, n), levels (b, W, C) -> parameters (b, W, P)."""
        first, *conditions = condition.split(self._sizes, -1)
        pixels = F.pad(_marked(row.to(first.dtype), -1), (0, 0, 3, 0))[:, None, :-1]
        left = _apply(self._from_left, _columns(pixels, 3)) + first
        for layer, each in zip(self._left, conditions, strict=True):
            columns = _columns(F.pad(F.elu(left), (0, 0, 2, 0)).unsqueeze(1), 3)
            left = left + F.glu(_apply(layer, columns) + each, -1)
        return _apply(self._head, F.elu(left))


def _marked(levels: Tensor, channels: int) -> Tensor:
    """Scaled levels, and ones that tell the image from the padding around it."""
    x = scaled(levels)
    return torch.cat((x, torch.ones_like(x.narrow(channels, 0, 1))), channels)


def _matrix(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A convolution as a matrix (rows * columns * channels, out) and a bias."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return weight.detach().permute(2, 3, 1, 0).flatten(0, 2).contiguous(), bias.detach()


def _columns(rows: Tensor, reach: int) -> Tensor:
    """What a convolution sees at each place of its last row: (B, n, W + reach - 1, C) -> (B, W, n * reach * C)."""
    return rows.unfold(2, reach, 1).permute(0, 2, 1, 4, 3).flatten(2)


def _apply(matrix: tuple[Tensor, Tensor], columns: Tensor) -> Tensor:
    weight, bias = matrix
    flat = torch.addmm(bias, columns.reshape(-1, columns.shape[-1]), weight)
    return flat.view(*columns.shape[:-1], -1)
