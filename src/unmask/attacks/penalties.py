"""Terms that draw a search towards the image, where its space cannot keep it inside the ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unmask.threats import Threat

__all__ = ["Penalty", "distance", "outside"]


def outside(decoded: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Squared distance (B,) to the nearest point of the ball, over the squared radius of the ball."""
    return _squared(decoded - threat.project(decoded.detach(), x)) / threat.radius(x) ** 2


def distance(decoded: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Squared distance (B,) to the image over the squared radius (Carlini & Wagner, S&P 2017)."""
    return _squared(decoded - x) / threat.radius(x) ** 2


def _squared(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).sum(1)


@dataclass(frozen=True)
class Penalty:
    """``weight * factor ** restart`` times a term: each restart tries another balance with the loss."""

    weight: float = 1.0
    factor: float = 0.1
    term: Callable[[Tensor, Tensor, Threat], Tensor] = outside
