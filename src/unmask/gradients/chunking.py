"""How many rows a forward pass may have, so that repeated examples fit into memory."""

from __future__ import annotations

from torch import Tensor

__all__ = ["rows_at_once"]

_ROWS, _NUMBERS = 1024, 1 << 22


def rows_at_once(z: Tensor) -> int:
    """Rows like those of ``z`` (B, ...): 1024, fewer of large ones, as what a network keeps of each grows with it.

    >>> import torch
    >>> rows_at_once(torch.rand(2, 1, 28, 28)), rows_at_once(torch.rand(2, 3, 224, 224))
    (1024, 27)
    """
    return max(1, min(_ROWS, _NUMBERS // max(1, z[0].numel()))) if len(z) else _ROWS
