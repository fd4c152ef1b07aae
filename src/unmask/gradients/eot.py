"""Expectation over transformation: the gradient of the mean loss of a random model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.gradients.autograd import autograd
from unmask.randomness import current, drawing
from unmask.types import Estimator, Objective

__all__ = ["EOT"]


@dataclass(frozen=True)
class EOT:
    """Average the gradient of the loss over draws of a random model (Athalye et al., ICML 2018).

    Losses are averaged, never logits: the attacker wants each draw to be wrong, not their mean.

    Args:
        samples: draws for a gradient; the most, where ``signal`` may stop earlier.
        inner: the estimator of a single draw's gradient.
        batch: rows in one forward pass at most; draws share a pass where they fit. 1 gives every draw
            a pass of its own, as a model needs whose random numbers are shared by the batch.
        signal: stop drawing for an example once the signal-to-noise ratio of its mean gradient,
            ``|mean| / sqrt(E|g - mean|^2 / draws)``, reaches this. Looked at after 4, 8, 16 ... draws.

    >>> import torch
    >>> noisy = lambda z, rows=None: (z * (1 + torch.randn_like(z))).sum(1)
    >>> values, gradient = EOT(2000)(noisy, torch.ones(1, 1))
    >>> bool((gradient - 1).abs() < 0.2)
    True
    """

    samples: int = 30
    inner: Estimator = autograd
    batch: int = 1024
    signal: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch < 1:
            raise ValueError(f"EOT needs samples >= 1 and batch >= 1, not {self.samples} and {self.batch}")

    def __call__(self, objective: Objective, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(z), device=z.device) if rows is None else rows
        keys = current()
        active = torch.arange(len(z), device=z.device)
        count, values, energy = z.new_zeros(3, len(z))  # energy: sum of |g|^2 over draws
        total = torch.zeros_like(z)
        drawn = 0
        while drawn < self.samples and len(active):
            goal = self.samples if self.signal is None else min(self.samples, max(4, 2 * drawn))
            while drawn < goal:
                times = max(1, min(goal - drawn, self.batch // len(active)))
                with drawing(keys and keys.select(active).repeat(times, first=drawn)):
                    v, g = self.inner(
                        objective, z[active].repeat(times, *[1] * (z.ndim - 1)), rows[active].repeat(times)
                    )
                values[active] += v.view(times, -1).sum(0)
                total[active] += g.view(times, len(active), *z.shape[1:]).sum(0)
                energy[active] += g.flatten(1).square().sum(1).view(times, -1).sum(0)
                drawn += times
            count[active] = drawn
            if self.signal is not None:
                active = active[_signal(total[active], energy[active], drawn) < self.signal]
        shape = (-1, *[1] * (z.ndim - 1))
        return values / count, total / count.view(shape)


def _signal(total: Tensor, energy: Tensor, draws: int) -> Tensor:
    """Signal-to-noise ratio (B,) of a mean gradient, from its draws' sum and sum of squared norms."""
    mean = (total / draws).flatten(1).square().sum(1)
    noise = (energy / draws - mean).clamp_min(0) / max(draws - 1, 1)
    return (mean / noise.clamp_min(1e-30)).sqrt()
