"""A stream that is being drawn from."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.randomness.keys import Keys, fold, uniform_bits, words
from unmask.randomness.normals import normals

__all__ = ["Source", "below_one"]


class Source:
    """A stream that is being drawn from: counts the draws."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.calls = 0
        self.torch_seed: int | None = None  # of torch's own generator, where its operations draw from here

    def copy(self) -> Source:
        """A stream that draws the same numbers next."""
        return copy.copy(self)

    def bits(self, size: Sequence[int], device: torch.device) -> Tensor:
        """53 random bits for each element of ``size``, as int64."""
        base = self._base(size, device)
        return uniform_bits(base, math.prod(size) // len(base)).reshape(tuple(size))

    def _base(self, size: Sequence[int], device: torch.device) -> Tensor:
        """Keys of the next draw: one a row, or one for all."""
        self.calls += 1
        rows = self.keys.rows.to(device)
        if size and size[0] and len(rows) and size[0] % len(rows) == 0:
            times = size[0] // len(rows)
            base = self.keys.repeat(times).rows.to(device) if times > 1 else rows
        else:
            base = torch.tensor([self.keys.shared], device=device)
        return fold(base, self.calls)

    def uniform(self, size: Sequence[int], device: torch.device) -> Tensor:
        """float64 in [0, 1)."""
        number: Tensor = self.bits(size, device).double() * 2.0**-53
        return number

    def normal(self, size: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Standard normal, by the inverse distribution function: float64 where ``dtype`` is, else float32."""
        if dtype == torch.float64:
            exact: Tensor = torch.special.ndtri(self.uniform(size, device).clamp_min(2.0**-54))
            return exact
        base = self._base(size, device)
        count = math.prod(size) // len(base)
        halves = words(base, (count + 1) // 2).view(torch.int32)  # two numbers a word
        return normals(halves[:, :count]).reshape(tuple(size))


def below_one(u: Tensor) -> Tensor:
    """Rounding to a narrower type can reach 1, which a uniform draw never is."""
    return u.clamp(max=1 - torch.finfo(u.dtype).eps / 2)
