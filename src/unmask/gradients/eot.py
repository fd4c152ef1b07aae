"""Expectation over transformation: the gradient of the mean loss of a random model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.gradients.autograd import autograd
from unmask.gradients.chunking import rows_at_once
from unmask.randomness import current, use_keys
from unmask.types import Estimator, Objective

__all__ = ["EOT", "Stop", "Tally", "sign_agreement", "signal_to_noise"]


@dataclass(frozen=True)
class Tally:
    """The gradients (B, ...) of some draws, added up."""

    draws: int
    total: Tensor  # (B, ...)
    signs: Tensor  # (B, ...) sum of signs
    energy: Tensor  # (B,) sum of squared lengths

    @classmethod
    def of(cls, z: Tensor) -> Tally:
        """Nothing drawn yet."""
        return cls(0, torch.zeros_like(z), torch.zeros_like(z), z.new_zeros(len(z)))

    def add(self, active: Tensor, gradients: Tensor) -> Tally:
        """Further draws (K, M, ...) of the examples ``active`` (M,), one by one: no sum depends on how they came.

        Elements that are NaN or infinite in a draw count as 0.
        """
        for gradient in gradients.nan_to_num(0.0, 0.0, 0.0):
            self.total[active] += gradient
            self.signs[active] += gradient.sign()
            self.energy[active] += gradient.flatten(1).square().sum(1)
        return Tally(self.draws + len(gradients), self.total, self.signs, self.energy)

    def select(self, rows: Tensor) -> Tally:
        """Those of some examples."""
        return Tally(self.draws, self.total[rows], self.signs[rows], self.energy[rows])


Stop = Callable[[Tally], Tensor]
"""Whether (B,) an example has been drawn for often enough."""


def signal_to_noise(level: float) -> Stop:
    """Enough once ``|mean| / sqrt(E|g - mean|^2 / draws)`` of the gradient reaches ``level``."""

    def enough(tally: Tally) -> Tensor:
        mean = (tally.total / tally.draws).flatten(1).square().sum(1)
        noise = (tally.energy / tally.draws - mean).clamp_min(0) / max(tally.draws - 1, 1)
        return mean >= level**2 * noise

    return enough


def sign_agreement(level: float) -> Stop:
    """Enough once the draws agree in sign by ``level``: the mean over coordinates of |sum of signs| / draws."""

    def enough(tally: Tally) -> Tensor:
        return (tally.signs.abs() / tally.draws).flatten(1).mean(1) >= level

    return enough


@dataclass(frozen=True)
class EOT:
    """Average the gradient of the loss over draws of a random model (Athalye et al., ICML 2018).

    Losses are averaged, never logits: the attacker wants each draw to be wrong, not their mean.

    Args:
        samples: draws for a gradient; the most, where ``until`` may stop earlier.
        inner: the estimator of a single draw's gradient.
        batch: rows in one forward pass at most; draws share a pass where they fit. 1 gives every draw
            a pass of its own, as a model needs whose random numbers are shared by the batch. None is what
            :func:`unmask.gradients.chunking.rows_at_once` gives.
        until: when an example has had draws enough, such as ``signal_to_noise(3)`` or
            ``sign_agreement(0.9)``; looked at after 4, 8, 16 ... draws, for each example by itself.

    Raises UnmaskError for samples or batch below 1.

    >>> import torch
    >>> noisy = lambda z, rows=None: (z * (1 + torch.randn_like(z))).sum(1)
    >>> values, gradient = EOT(2000)(noisy, torch.ones(1, 1))
    >>> bool((gradient - 1).abs() < 0.2)
    True
    """

    samples: int = 30
    inner: Estimator = autograd
    batch: int | None = None
    until: Stop | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.batch is not None and self.batch < 1):
            raise UnmaskError(f"EOT needs samples >= 1 and batch >= 1, not {self.samples} and {self.batch}")

    def __call__(self, objective: Objective, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(z), device=z.device) if rows is None else rows
        keys, active = current(), torch.arange(len(z), device=z.device)
        count, values = z.new_zeros(2, len(z))
        tally, most = Tally.of(z), self.batch or rows_at_once(z)
        while tally.draws < self.samples and len(active):
            goal = self.samples if self.until is None else min(self.samples, max(4, 2 * tally.draws))
            while tally.draws < goal:
                times = max(1, min(goal - tally.draws, most // len(active)))
                with use_keys(keys and keys.select(active).repeat(times, first=tally.draws)):
                    at = z[active].repeat(times, *[1] * (z.ndim - 1))
                    value, gradient = self.inner(objective, at, rows[active].repeat(times))
                for one in value.view(times, -1):
                    values[active] += one
                tally = tally.add(active, gradient.view(times, len(active), *z.shape[1:]))
            count[active] = tally.draws
            if self.until is not None:
                active = active[~self.until(tally.select(active))]
        return values / count, tally.total / count.view(-1, *[1] * (z.ndim - 1))
