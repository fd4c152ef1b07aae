"""Images that are like others by all degrees: what a model is shown to see whether it compares what it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.randomness import Keys, uniform, use_keys

__all__ = ["near", "unlike"]

_NEAREST, _FARTHEST = 1e-3, 0.3
"""By how much the nearest and the farthest of neighbours differ in an element, at most."""


def near(x: Tensor, count: int, keys: Keys) -> Tensor:
    """``count`` images like each of ``x`` (B, C, H, W), from all but the same to hardly the same: (B * count, C, H, W).

    Those of one image lie together. ``keys`` are of one row.
    """
    size = torch.logspace(0, 1, count, _FARTHEST / _NEAREST, device=x.device).mul(_NEAREST).repeat(len(x))
    noise = 2 * unlike(x, count, keys) - 1
    return (x.repeat_interleave(count, 0) + size.view(-1, 1, 1, 1).to(x) * noise).clamp(0, 1)


def unlike(x: Tensor, count: int, keys: Keys) -> Tensor:
    """As many images of noise alone."""
    shape = (len(x) * count, *x.shape[1:])
    with use_keys(keys):
        return uniform((1, *shape), x[:1].unsqueeze(0))[0]
