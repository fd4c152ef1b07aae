"""A density of images, pixel after pixel in raster order: a gated PixelCNN that can be evaluated in waves."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.nets.logistic_mixture import log_likelihood, numbers, scaled

__all__ = ["Causal", "PixelCNN", "Waves", "marked"]


class Causal(nn.Conv2d):
    """A convolution that sees places before its own: left of it, and above it up to a diagonal to the right.

    Of ``size`` = (rows, columns), columns odd: the last row is the place's own, of which it sees what is to
    the left, and itself if ``own``; d rows higher it sees columns up to d to the right. Stacked layers keep
    to that cone: what is further to the right, the blind spot of van den Oord et al., *Pixel Recurrent
    Neural Networks* (ICML 2016), is what lets a row begin before the one above is finished.
    """

    def __init__(self, channels: int, out: int, size: tuple[int, int], *, own: bool) -> None:
        rows, columns = size
        super().__init__(channels, out, size, padding=(rows - 1, columns // 2))
        reach = columns // 2
        self.taps = [
            (up, right)
            for up in reversed(range(rows))
            for right in range(-reach, reach + 1)
            if right <= up and (up or own or right)
        ]
        mask = torch.zeros(size)
        for up, right in self.taps:
            mask[rows - 1 - up, reach + right] = 1
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        mask: Tensor = self.get_buffer("mask")
        return F.conv2d(input, self.weight * mask, self.bias, padding=self.padding)[:, :, : input.shape[2]]

    def matrix(self) -> tuple[Tensor, Tensor]:
        """Weights (taps * channels, out) and bias, for what the taps see, one after another."""
        seen = [self.weight[:, :, self.kernel_size[0] - 1 - up, self.padding[1] + right] for up, right in self.taps]  # type: ignore[operator]
        assert self.bias is not None
        return torch.cat(seen, 1).detach().T.contiguous(), self.bias.detach()


class PixelCNN(nn.Module):
    """Each pixel's distribution given those before it, for images of any size.

    Gated residual layers as in van den Oord et al., *Conditional Image Generation with PixelCNN Decoders*
    (NeurIPS 2016), in one stack; at the end, the distributions of PixelCNN++
    (:mod:`unmask.nets.logistic_mixture`), whose channels depend on one another within the pixel, so that
    no layer has to be masked channel by channel.

    Args:
        channels: of the images.
        width: channels of the layers.
        layers: gated residual layers.
        components: of each pixel's mixture.

    >>> net = PixelCNN(1, width=8, layers=2, components=3)
    >>> net(torch.zeros(2, 1, 4, 6, dtype=torch.long)).shape
    torch.Size([2, 4, 6, 9])
    """

    def __init__(self, channels: int = 3, width: int = 40, layers: int = 9, components: int = 5) -> None:
        super().__init__()
        self.channels = channels
        self.enter = Causal(channels + 1, width, (3, 5), own=False)
        self.layers = nn.ModuleList(Causal(width, 2 * width, (2, 3), own=True) for _ in range(layers))
        self.head = nn.Conv2d(width, numbers(channels, components), 1)

    def forward(self, levels: Tensor) -> Tensor:
        """Levels (B, C, H, W), 0 to 255 -> parameters (B, H, W, P) of each pixel's distribution."""
        x = marked(levels.to(self.head.weight.dtype), 1).contiguous(memory_format=torch.channels_last)
        state = self.enter(x)
        for layer in self.layers:
            state = state + F.glu(layer(F.elu(state)), 1)
        parameters: Tensor = self.head(F.elu(state)).permute(0, 2, 3, 1)
        return parameters

    def bits_per_dim(self, levels: Tensor) -> Tensor:
        """Mean negative log likelihood (B,) of images (B, C, H, W), in bits per pixel and channel."""
        nats = log_likelihood(self(levels), levels.permute(0, 2, 3, 1)).flatten(1).sum(1)
        return -nats / (levels[0].numel() * math.log(2))


class Waves:
    """The same distributions in H * 2 + W - 2 steps, where pixel after pixel takes H * W.

    All a pixel (r, c) depends on has a smaller c + 2 r, as no layer looks to the right by more columns than
    it looks up: the pixels with the same c + 2 r, one of every row, are evaluated at once, each of them once.

    >>> net = PixelCNN(1, width=8, layers=2, components=3)
    >>> levels = torch.randint(256, (4, 6, 2, 1))  # (H, W, B, C)
    >>> waves, found = Waves(net, 2, 4, 6), torch.zeros(4, 6, 2, 9)
    >>> for places in waves:
    ...     found[places] = waves.parameters()
    ...     waves.push(levels[places])
    >>> torch.allclose(found, net(levels.permute(2, 3, 0, 1)).permute(1, 2, 0, 3), atol=1e-5)
    True
    """

    def __init__(self, net: PixelCNN, batch: int, height: int, side: int) -> None:
        if side < 2:
            raise UnmaskError(f"images of {side} column have no waves: they need 2 columns")
        self.height, self.side = height, side
        self._layers = [(layer.taps, *layer.matrix()) for layer in (net.enter, *net.layers)]
        assert net.head.bias is not None
        self._head = net.head.weight.detach().flatten(1).T.contiguous(), net.head.bias.detach()
        # of each layer's input, what the last waves left: (2 + H, B, C), two rows of padding above the image
        sizes = (net.channels + 1, *[net.enter.out_channels] * len(net.layers))
        blank = net.head.weight.new_zeros
        self._past = [deque(blank(6, height + 2, batch, size)) for size in sizes]
        self._rows = range(0)

    def __len__(self) -> int:
        return self.side + 2 * (self.height - 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (n,) and columns (n,) of each wave's pixels; to be pushed before the next is asked for."""
        for wave in range(len(self)):
            first, last = max(0, (wave - self.side + 2) // 2), min(self.height - 1, wave // 2)
            self._rows = range(first, last + 1)
            r = torch.arange(first, last + 1)
            yield r, wave - 2 * r

    def parameters(self) -> Tensor:
        """Of the pixels of this wave: (n, B, P)."""
        state = self._apply(0)
        for i in range(1, len(self._layers)):
            self._keep(i, F.elu(state))
            state = state + F.glu(self._apply(i), -1)
        return _linear(F.elu(state), *self._head)

    def push(self, levels: Tensor) -> None:
        """Take the levels (n, B, C) of this wave as known."""
        self._keep(0, marked(levels.to(self._head[0].dtype), -1))

    def _apply(self, i: int) -> Tensor:
        """A layer at the pixels of this wave; a tap d rows up and e columns to the right was 2 d - e waves ago."""
        taps, weight, bias = self._layers[i]
        now = 1 if i == 0 else 0  # how many waves ago the latest entry was
        first, last = self._rows[0] + 2, self._rows[-1] + 3
        seen = [self._past[i][2 * up - right - now][first - up : last - up] for up, right in taps]
        return _linear(torch.cat(seen, -1), weight, bias)

    def _keep(self, i: int, seen: Tensor) -> None:
        """Write over the oldest entry: zeros where this wave has no pixel."""
        past, first = self._past[i], self._rows[0] + 2
        past.rotate()
        past[0][first - 3 : first] = 0  # six waves ago, rows began at most three earlier, and ended no later
        past[0][first : self._rows[-1] + 3] = seen


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n, B, C) times (C, out), plus bias, by one matrix product."""
    out: Tensor = torch.addmm(bias, x.flatten(0, 1), weight).unflatten(0, x.shape[:2])
    return out


def marked(levels: Tensor, channels: int) -> Tensor:
    """Scaled levels, and ones that tell the image from the padding around it."""
    x = scaled(levels)
    return torch.cat((x, torch.ones_like(x.narrow(channels, 0, 1))), channels)
