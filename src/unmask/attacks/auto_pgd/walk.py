"""Where the searches of Auto-PGD are, what they have seen, and how they move. State is per example."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unmask.threats import Threat

__all__ = ["Walk", "begin", "where"]


class Walk(NamedTuple):
    """M searches."""

    at: Tensor  # (M, ...)
    before: Tensor  # (M, ...), the point before this one
    value: Tensor  # (M,)
    direction: Tensor  # (M, ...)
    best: Tensor  # (M, ...)
    best_value: Tensor  # (M,)
    best_direction: Tensor  # (M, ...)
    length: Tensor  # (M,) of a step
    width: Tensor  # (M,) elements among which a step is shared out: see Threat.ascent
    rises: Tensor  # (M,) steps since the last checkpoint that raised the value
    halved: Tensor  # (M,) bool, at the last checkpoint
    checked: Tensor  # (M,) at the last checkpoint: the best value, or how many elements of the best point had changed

    def note(self, value: Tensor, direction: Tensor) -> Walk:
        """Value and direction of ascent at this point."""
        better = value > self.best_value
        return self._replace(
            value=value,
            direction=direction,
            best=where(better, self.at, self.best),
            best_value=where(better, value, self.best_value),
            best_direction=where(better, direction, self.best_direction),
            rises=self.rises + (value > self.value),
        )

    def back(self, rows: Tensor) -> Walk:
        """To the best point, in the rows that a mask (M,) names."""
        return self._replace(
            at=where(rows, self.best, self.at),
            value=where(rows, self.best_value, self.value),
            direction=where(rows, self.best_direction, self.direction),
        )

    def move(self, threat: Threat, x: Tensor, share: float) -> Walk:
        """A step along the direction and, for the rest of the ``share``, along the last move."""
        direction = threat.ascent(self.direction, self.at, x, self.width)
        ahead = threat.project(self.at + self.length.view(-1, *[1] * (x.ndim - 1)) * direction, x)
        if share < 1:
            ahead = threat.project(self.at + share * (ahead - self.at) + (1 - share) * (self.at - self.before), x)
        return self._replace(at=ahead, before=self.at)


def begin(at: Tensor, length: Tensor, width: Tensor, checked: Tensor) -> Walk:
    """The first value is no rise, and the first checkpoint looks at rises alone, as in the authors' code."""
    high, none = torch.full_like(length, torch.inf), torch.zeros_like(at)
    first = torch.ones_like(length, dtype=torch.bool)
    return Walk(at, at, high, none, at, -high, none, length, width, torch.zeros_like(length), first, checked)


def where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """``torch.where`` for a mask (M,) of rows."""
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)
