"""PixelDefend: the classifier sees a nearby image that a density of natural images finds more likely."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.nets.logistic_mixture import greedy
from unmask.nets.pixel_cnn import PixelCNN, Rows

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
            levels, _ = solve(self.density, *reach(x, self.eps))
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


def solve(density: PixelCNN, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The greedy image within bounds (B, C, H, W), and how many evaluations of a row each image took (B,).

    Greedy choices are a triangular system: each depends on earlier ones alone. All pixels of a row are
    chosen at once, given a guess of the row; the choices are the next guess, until they no longer change.
    The only fixed point is what one pixel after another gives (Song et al., *Accelerating Feedforward
    Computation via Parallel Nonlinear Equation Solving*, ICML 2021), in fewer evaluations, as what one
    pixel becomes seldom changes all those to its right. Images whose row is settled leave.
    """
    batch, _, height, side = low.shape
    low, high = (bound.permute(2, 0, 3, 1).contiguous() for bound in (low, high))  # (H, B, W, C)
    image = (low + high) // 2
    evaluations = torch.zeros(batch, dtype=torch.long, device=low.device)
    rows, row = Rows(density, batch, side), None
    for r in range(height):
        condition, row = rows.below(row), image[r]
        active = torch.arange(batch, device=low.device)
        while len(active):
            chosen = greedy(rows.parameters(condition[active], row[active]), low[r, active], high[r, active])
            evaluations[active] += 1
            changed = (chosen != row[active]).flatten(1).any(1)
            row[active] = chosen
            active = active[changed]
    return image.permute(1, 3, 0, 2), evaluations


class PixelDefend(nn.Module):
    """A classifier of purified images (Song et al., ICLR 2018). No gradient: an argmax after another."""

    def __init__(self, classifier: nn.Module, purify: Purify) -> None:
        super().__init__()
        self.purify = purify
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x))
        return logits
