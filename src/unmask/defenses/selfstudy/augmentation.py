"""Strong augmentation, at training and at test time: colours, mirror image and place are drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.randomness import uniform

__all__ = ["StrongAugmentation", "brightness", "contrast", "hue", "saturation"]


def brightness(x: Tensor, amount: Tensor) -> Tensor:
    """Images (B, 3, H, W) plus ``amount`` (B, 1, 1, 1)."""
    return x + amount


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """The distance of images (B, 3, H, W) from each channel's mean times ``factor`` (B, 1, 1, 1)."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """The saturation of images (B, 3, H, W) times ``factor`` (B, 1, 1, 1), at most 1; hue and value stay.

    >>> saturation(torch.tensor([0.4, 0.6, 0.8]).view(1, 3, 1, 1), torch.tensor(2.0)).flatten()
    tensor([0.0000, 0.4000, 0.8000])
    """
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    most = value / (value - least).clamp_min(1e-6)  # the factor by which the least channel becomes 0
    return value - (value - x) * torch.minimum(factor, most.clamp_min(1))


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """The hue of images (B, 3, H, W) turned by ``turn`` (B, 1, 1, 1) of a circle; saturation and value stay.

    >>> hue(torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1), torch.full((1, 1, 1, 1), 1 / 3)).flatten()
    tensor([0.2000, 0.8000, 0.2000])
    """
    red, green, blue = x.unbind(1)
    value, at = x.max(1)
    chroma = value - x.amin(1)
    by = chroma.clamp_min(1e-6)
    sextant = torch.stack(((green - blue) / by, (blue - red) / by + 2, (red - green) / by + 4))
    sextant = sextant.gather(0, at[None]).squeeze(0) + 6 * turn.squeeze(1)
    places = torch.tensor([5.0, 3.0, 1.0], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    k = (places + sextant[:, None]).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


_OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


class StrongAugmentation(nn.Module):
    """The augmentation of SimCLR (Chen et al., ICML 2020) as the course has it: (B, 3, H, W) -> (B, 3, H, W) in [0, 1].

    Brightness, contrast, saturation and hue are changed in a random order, by random amounts, with clipping after each;
    then every second image is mirrored, and each is moved by up to ``shift`` pixels over its own reflection. Every
    image has a draw of its own.

    Args:
        strength: of the colours: up to 0.8 of it for brightness, contrast and saturation, 0.2 of it for hue.
        shift: in pixels.

    >>> StrongAugmentation()(torch.rand(5, 3, 32, 32)).shape
    torch.Size([5, 3, 32, 32])
    """

    def __init__(self, strength: float = 0.5, shift: int = 4) -> None:
        super().__init__()
        self.strength, self.shift = strength, shift

    def forward(self, x: Tensor) -> Tensor:
        u = uniform((len(x), 11), like=x[:1].float())
        x = self._coloured(x, u[:, :4].argsort(1), (2 * u[:, 4:8] - 1).to(x.dtype))
        x = torch.where((u[:, 8] < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
        top, left = ((u[:, i] * (2 * self.shift + 1)).long() for i in (9, 10))
        return self._moved(x, top, left)

    def _coloured(self, x: Tensor, order: Tensor, amounts: Tensor) -> Tensor:
        """Images whose operation number i is ``order[:, i]``, by ``amounts`` (B, 4) in [-1, 1] of the most."""
        most = torch.tensor([0.8, 0.8, 0.8, 0.2], device=x.device, dtype=x.dtype) * self.strength
        base = torch.tensor([0.0, 1.0, 1.0, 0.0], device=x.device, dtype=x.dtype)
        sizes = (base + amounts * most).view(-1, 4, 1, 1, 1)
        for i in range(4):
            changed = torch.zeros_like(x)
            for number, operation in enumerate(_OPERATIONS):
                rows = (order[:, i] == number).nonzero().squeeze(1)
                if len(rows):
                    changed = changed.index_copy(0, rows, operation(x[rows], sizes[rows, number]))
            x = changed.clamp(0, 1)
        return x

    def _moved(self, x: Tensor, top: Tensor, left: Tensor) -> Tensor:
        size, _, height, width = x.shape
        padded = F.pad(x, (self.shift,) * 4, mode="reflect").permute(0, 2, 3, 1)
        rows = (top[:, None] + torch.arange(height, device=x.device))[:, :, None]
        columns = (left[:, None] + torch.arange(width, device=x.device))[:, None, :]
        return padded[torch.arange(size, device=x.device)[:, None, None], rows, columns].permute(0, 3, 1, 2)
