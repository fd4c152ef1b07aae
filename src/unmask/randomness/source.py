"""A stream that is being drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.randomness.keys import Stream, fold, uniform_bits

__all__ = ["Source", "below_one"]


class Source:
    """A stream that is being drawn from: counts the draws."""

    def __init__(self, keys: Stream) -> None:
        self.keys = keys
        self.calls = 0

    def bits(self, size: Sequence[int], device: torch.device) -> Tensor:
        """53 random bits for each element of ``size``, as int64."""
        self.calls += 1
        rows = self.keys.rows.to(device)
        if size and size[0] and len(rows) and size[0] % len(rows) == 0:
            times = size[0] // len(rows)
            base = self.keys.repeat(times).rows.to(device) if times > 1 else rows
        else:
            base = torch.tensor([self.keys.shared], device=device)
        return uniform_bits(fold(base, self.calls), math.prod(size) // len(base)).reshape(tuple(size))

    def uniform(self, size: Sequence[int], device: torch.device) -> Tensor:
        """float64 in [0, 1)."""
        number: Tensor = self.bits(size, device).double() * 2.0**-53
        return number

    def normal(self, size: Sequence[int], device: torch.device) -> Tensor:
        """float64, standard normal, by the inverse distribution function."""
        number: Tensor = torch.special.ndtri(self.uniform(size, device).clamp_min(2.0**-54))
        return number


def below_one(u: Tensor) -> Tensor:
    """Rounding to a narrower type can reach 1, which a uniform draw never is."""
    return u.clamp(max=1 - torch.finfo(u.dtype).eps / 2)
