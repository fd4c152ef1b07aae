"""Terms that draw a search towards the image, where its space cannot keep it inside the ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.threats import Threat

__all__ = ["Penalty", "distance", "outside"]


def outside(decoded: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Squared distance (B,) to the nearest point of the ball, over that of a steepest step of length eps."""
    return _squared(decoded - threat.project(decoded.detach(), x)) / _reach(x, threat)


def distance(decoded: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Squared distance (B,) to the image, over that of a steepest step of length eps (Carlini & Wagner, S&P 2017)."""
    return _squared(decoded - x) / _reach(x, threat)


def _squared(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).sum(1)


def _reach(x: Tensor, threat: Threat) -> Tensor:
    """eps^2 for L2, but times the number of elements for Linf: one weight then serves images of any size."""
    return (threat.radius(x).square() * _squared(threat.ascent(torch.ones_like(x)))).clamp_min(1e-12)


@dataclass(frozen=True)
class Penalty:
    """``weight * factor ** restart`` times a term: each restart tries another balance with the loss."""

    weight: float = 1.0
    factor: float = 0.1
    term: Callable[[Tensor, Tensor, Threat], Tensor] = outside
