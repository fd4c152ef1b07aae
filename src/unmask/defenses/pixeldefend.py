"""PixelDefend: the classifier sees a nearby image that a density of natural images finds more likely."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.nets.logistic_mixture import greedy
from unmask.nets.pixel_cnn import PixelCNN, Waves
from unmask.progress import track

__all__ = ["PixelDefend", "Purify", "reach", "solve"]


class Purify(nn.Module):
    """Pixel after pixel, the most likely value near the pixel's own: (B, C, H, W) -> (B, C, H, W), in [0, 1].

    In raster order, channels in order, each becomes the v in [x - eps, x + eps] that is most probable given
    the values chosen before it; values are multiples of 1 / 255. Computed in double precision: choices
    between values that are all but equally likely then come out the same for any batch and on any machine.

    Args:
        density: of images.
        eps: in levels, 1 / 255 each.
    """

    def __init__(self, density: PixelCNN, eps: int = 16) -> None:
        super().__init__()
        self.density = density.double()
        self.eps = eps

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            levels = solve(self.density, *reach(x, self.eps))
        return (levels.double() / 255).to(x.dtype)


def reach(x: Tensor, eps: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest level within ``eps`` levels of images (B, C, H, W): integers.

    >>> reach(torch.tensor([[[[63 / 255]]]]), 16)
    (tensor([[[[47]]]]), tensor([[[[79]]]]))
    """
    place = 255 * x.double()
    rounding = 1e-3  # of a level: what was a whole level before it became a float32 shall be one
    low, high = (place - eps - rounding).ceil(), (place + eps + rounding).floor()
    return low.clamp_min(0).long(), high.clamp_max(255).long()


def solve(density: PixelCNN, low: Tensor, high: Tensor) -> Tensor:
    """The most probable level within bounds (B, C, H, W), pixel after pixel: integers (B, C, H, W)."""
    low, high = (bound.permute(2, 3, 0, 1).contiguous() for bound in (low, high))  # (H, W, B, C)
    levels = torch.zeros_like(low)
    waves = Waves(density, low.shape[2], *low.shape[:2])
    for places in track(waves, "purification"):
        levels[places] = greedy(waves.parameters(), low[places], high[places])
        waves.push(levels[places])
    return levels.permute(2, 3, 0, 1)


class PixelDefend(nn.Module):
    """A classifier of purified images (Song et al., ICLR 2018). No gradient: an argmax after another."""

    def __init__(self, classifier: nn.Module, purify: Purify) -> None:
        super().__init__()
        self.purify = purify
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x))
        return logits
