"""Random distortion over a grid: every forward pass stretches and squeezes the image elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["RandomDistortion", "places"]


class RandomDistortion(nn.Module):
    """Stretch the rows and columns of a grid at random: (B, C, H, W) -> the same shape (Zeng et al., RDG).

    Each side of each image is cut into ``steps`` cells of equal width. Cell k of the result shows a piece of the
    image that is 1 + U(-delta, delta) times as wide as the cell, piece after piece from the upper left corner;
    what would lie beyond the last row or column shows that row or column. Rows and columns are drawn apart.

    As the authors' code, but without its accidents: there the pieces repeat the pixel where they meet, widths are
    cut off to whole pixels, and pixels left over by that stretch to the far edge. The published pipeline
    of feature distillation and this is ``nn.Sequential(FeatureDistillation(), RandomDistortion())``.

    Args:
        delta: the largest relative change of a width, 0 to 1 (excluded, so that the order of pixels is kept).
        steps: cells a side.
        nearest: take the nearest pixel, as the authors do; otherwise interpolate linearly between the nearest
            ones. Gradients with respect to ``x`` are exact either way: pixels move, values do not change.

    Raises UnmaskError for a delta outside [0, 1) or fewer than one step.

    >>> x = torch.arange(8.0).expand(1, 1, 8, 8)
    >>> bool((RandomDistortion()(x).diff(dim=3) >= 0).all()), torch.equal(RandomDistortion(delta=0)(x), x)
    (True, True)
    """

    def __init__(self, delta: float = 0.25, steps: int = 10, nearest: bool = True) -> None:
        super().__init__()
        if not 0 <= delta < 1:
            raise UnmaskError(f"a distortion needs 0 <= delta < 1, not {delta}")
        if steps < 1:
            raise UnmaskError(f"a distortion needs a grid of at least one step, not {steps}")
        self.delta, self.steps, self.nearest = delta, steps, nearest

    def forward(self, x: Tensor) -> Tensor:
        u = uniform((len(x), 2, self.steps), like=x[:1].float())
        widths = 1 + self.delta * (2 * u - 1)
        x = self._along(x, places(widths[:, 0], x.shape[2])[:, None, :, None], _rows)
        return self._along(x, places(widths[:, 1], x.shape[3])[:, None, None, :], _columns)

    def _along(self, x: Tensor, place: Tensor, take: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if self.nearest:
            return take(x, place.round().long())
        low, high = take(x, place.floor().long()), take(x, place.ceil().long())
        return torch.lerp(low, high, place.frac().to(x.dtype))


def places(widths: Tensor, size: int) -> Tensor:
    """Where the pixels 0 to size - 1 of the result lie in the image: (B, size), in pixels, at most size - 1.

    Args:
        widths: (B, steps), of the pieces, relative to the cells, which are size / steps wide.
        size: pixels along the side.

    Pixel i of cell k lies at size / steps times the widths of the cells before k, plus its distance from the
    cell's edge times the width of k.

    >>> places(torch.tensor([[0.5, 1.5]]), 4).tolist()
    [[0.0, 0.5, 1.0, 2.5]]
    """
    steps = widths.shape[1]
    pixel = torch.arange(size, device=widths.device)
    cell = pixel * steps // size
    inside = pixel * steps - cell * size  # whole numbers, so that delta = 0 moves nothing
    whole = (widths.cumsum(1) - widths)[:, cell] * size
    return ((whole + inside * widths[:, cell]) / steps).clamp(0, size - 1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of each image by whole numbers (B, 1, H, 1)."""
    first = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(*x.shape[:2], 1) * x.shape[2]
    return x.reshape(-1, x.shape[3]).index_select(0, (first + index.squeeze(3)).flatten()).view(x.shape)


def _columns(x: Tensor, index: Tensor) -> Tensor:
    """Columns of each image by whole numbers (B, 1, 1, W)."""
    return x.gather(3, index.expand_as(x))
