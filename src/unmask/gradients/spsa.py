"""Gradient from differences of scores alone, for models that have no gradient or mask it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.gradients.chunking import rows_at_once
from unmask.randomness import current, normal, uniform, use_keys
from unmask.types import Objective

__all__ = ["SPSA", "gaussian", "rademacher"]


def rademacher(size: tuple[int, ...], like: Tensor) -> Tensor:
    """Directions of SPSA (Spall, 1992): every coordinate -1 or 1."""
    return (uniform(size, like) < 0.5).to(like.dtype) * 2 - 1


def gaussian(size: tuple[int, ...], like: Tensor) -> Tensor:
    """Directions of NES (Ilyas et al., ICML 2018): standard normal."""
    return normal(size, like)


@dataclass(frozen=True)
class SPSA:
    """Antithetic finite differences in random directions (Uesato et al., ICML 2018).

    Both points of a pair see the same draw of a random model. Each example has directions of its own.

    Args:
        samples: pairs of evaluations for a gradient.
        sigma: length of the difference, in the units of ``z``.
        directions: :func:`rademacher` (SPSA) or :func:`gaussian` (NES).
        batch: rows in one forward pass at most; None is what :func:`unmask.gradients.chunking.rows_at_once` gives.

    >>> import torch
    >>> values, gradient = SPSA(samples=4000)(lambda z, rows=None: 3 * z[:, 0], torch.zeros(1, 2))
    >>> bool((gradient - torch.tensor([[3.0, 0.0]])).abs().max() < 0.3)
    True
    """

    samples: int = 64
    sigma: float = 0.01
    directions: Callable[[tuple[int, ...], Tensor], Tensor] = rademacher
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.batch is not None and self.batch < 1) or self.sigma <= 0:
            raise UnmaskError(
                f"SPSA needs samples >= 1, batch >= 1 and sigma > 0, not {self.samples}, {self.batch} and {self.sigma}"
            )

    def __call__(self, objective: Objective, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(z), device=z.device) if rows is None else rows
        keys = current()
        values, gradient = z.new_zeros(len(z)), torch.zeros_like(z)
        ones = [1] * (z.ndim - 1)
        for drawn in range(0, self.samples, step := max(1, (self.batch or rows_at_once(z)) // len(z))):
            times = min(step, self.samples - drawn)
            pairs = keys and keys.repeat(times, first=drawn)
            with use_keys(pairs and pairs.fold_in("direction")):
                u = self.directions((times * len(z), *z.shape[1:]), z)
            at, owner = z.repeat(times, *ones), rows.repeat(times)
            with torch.no_grad():
                with use_keys(pairs):
                    up = objective(at + self.sigma * u, owner)
                with use_keys(pairs):
                    down = objective(at - self.sigma * u, owner)
            slope = (up - down) / (2 * self.sigma)
            for g, v in zip(
                (slope.view(-1, *ones) * u).view(times, *z.shape), ((up + down) / 2).view(times, -1), strict=True
            ):
                gradient, values = gradient + g, values + v  # one by one: no sum depends on the batch
        return values / self.samples, gradient / self.samples
