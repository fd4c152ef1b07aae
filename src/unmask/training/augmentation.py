"""Augmentation of training images, each by itself: moved, and mirrored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mirrored", "shifted"]


def shifted(x: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) moved by up to ``max_shift`` pixels down or up, left or right; the border is repeated."""
    if not max_shift:
        return x
    size, _, height, width = x.shape
    top, left = torch.randint(0, 2 * max_shift + 1, (2, size, 1), generator=generator).to(x.device)
    padded = F.pad(x, (max_shift,) * 4, mode="replicate").permute(0, 2, 3, 1)
    rows = (top + torch.arange(height, device=x.device))[:, :, None]
    columns = (left + torch.arange(width, device=x.device))[:, None, :]
    return padded[torch.arange(size, device=x.device)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def mirrored(x: Tensor, index: Tensor, epoch: int) -> Tensor:
    """Every second image mirrored, and in the next epoch the others: all are seen both ways after two epochs.

    Which ones come first is a coin toss for each example ``index`` (B,). Jordan, *94% on CIFAR-10 in
    3.29 seconds on a single GPU* (2024).
    """
    coin = torch.div(index * 0x9E3779B1, 1 << 16, rounding_mode="floor") % 2
    mirror = ((coin + epoch) % 2 == 1).to(x.device)
    return torch.where(mirror[:, None, None, None], x.flip(3), x)
