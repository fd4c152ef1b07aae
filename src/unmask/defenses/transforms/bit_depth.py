"""Reduced bit depth: each value falls to the low edge of its coarse level, and its gradient is zero."""

from __future__ import annotations

from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["SLACK", "ReduceBitDepth"]

SLACK = 1e-3
"""Of a level of 1 / 255: a value that is at most this much below a whole level counts as that level."""


class ReduceBitDepth(nn.Module):
    """Keep the upper ``bits`` of each 8-bit value: (B, C, H, W) in [0, 1] -> the same shape (Guo et al., ICLR 2018).

    A value becomes a level of 0 to 255 by truncation, as the published code has it, not by rounding; the level
    loses its lower 8 - bits bits, so that it falls to the low edge of its bin, not to the centre; the result is
    that level / 255, at most (256 - 2^(8 - bits)) / 255. A float just below a whole level, by :data:`SLACK` of
    a level or less, counts as that level, since k / 255 times 255 may fall short of k.

    Args:
        bits: 1 to 8; with 8, only the truncation to whole levels is left.

    Raises UnmaskError for any other number of bits.

    >>> import torch
    >>> (255 * ReduceBitDepth(3)(torch.tensor([[[[31 / 255, 32 / 255, 1.0]]]]))).round().flatten().tolist()
    [0.0, 32.0, 224.0]
    """

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise UnmaskError(f"a depth is 1 to 8 bits, not {bits}")
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        width = 1 << (8 - self.bits)
        low = ((255 * x + SLACK) / width).floor() * width
        return low / 255
