"""Random resizing and padding: every forward pass sees another image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["RandomResizePad", "Randomization"]


class RandomResizePad(nn.Module):
    """Resize to a random side in [low, high), pad to ``high`` at a random place (Xie et al., ICLR 2018).

    (B, C, H, H) -> (B, C, high, high). Each image has a draw of its own. The side is uniform over the
    integers of the half-open range and the place uniform over all that fit, as the paper says; resizing
    is bilinear with half-pixel centres, written as two products with interpolation matrices, so that
    images of different sides share a batch and gradients are exact.

    >>> RandomResizePad(8, 10)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 1, 10, 10])
    """

    def __init__(self, low: int, high: int, fill: float = 0.0) -> None:
        super().__init__()
        if not 0 < low < high:
            raise UnmaskError(f"resizing needs 0 < low < high, not low={low} and high={high}")
        self.low, self.high, self.fill = low, high, fill

    def forward(self, x: Tensor) -> Tensor:
        u = uniform((len(x), 3), like=x[:1].float())
        side = self.low + (u[:, 0] * (self.high - self.low)).floor()
        top, left = ((u[:, i] * (self.high - side + 1)).floor() for i in (1, 2))
        rows, columns = (self._matrix(side, at, x.shape[-1], x.dtype) for at in (top, left))
        inside = rows.sum(2)[:, None, :, None] * columns.sum(2)[:, None, None, :]
        resized = torch.einsum("bph,bchw,bqw->bcpq", rows, x, columns)
        return resized if self.fill == 0 else resized + self.fill * (1 - inside)

    def _matrix(self, side: Tensor, at: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """(B, high, size): how much each source pixel gives to each place; rows of the padding are zero."""
        place = torch.arange(self.high, device=side.device) - at[:, None]
        source = ((place + 0.5) * (size / side)[:, None] - 0.5).clamp(0, size - 1)
        weight = (1 - (source[:, :, None] - torch.arange(size, device=side.device)).abs()).clamp_min(0)
        inside = (place >= 0) & (place < side[:, None])
        return (weight * inside[:, :, None]).to(dtype)


class Randomization(nn.Module):
    """A classifier behind random resizing and padding (Xie et al., ICLR 2018). Stochastic gradients."""

    def __init__(self, classifier: nn.Module, low: int, high: int, fill: float = 0.0) -> None:
        super().__init__()
        self.transform = RandomResizePad(low, high, fill)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.transform(x))
        return logits
