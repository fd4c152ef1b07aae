"""Random points of the ball: the weakest attack there is, and the control of every other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.attacks.problem import BestTracker, Problem
from unmask.gradients.chunking import rows_at_once
from unmask.losses import margin
from unmask.randomness import use_keys
from unmask.types import Loss

__all__ = ["RandomSearch"]


@dataclass(frozen=True)
class RandomSearch:
    """Points drawn uniformly from the ball; the one of the highest loss, or the first that the judge finds broken.

    Args:
        samples: points per example.
        loss: by which points are compared.
        batch: rows in one forward pass at most, fewer of large images; the result does not depend on it.

    >>> from unmask.randomness import make_keys
    >>> from unmask.threats import Linf
    >>> view, x, y = torch.nn.Flatten(), torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    >>> broken = lambda rows, x_adv, when: view(x_adv).argmax(1) != y[rows]
    >>> problem = Problem(view, x, y, Linf(0.2), make_keys(0, [0], "attack"), broken)
    >>> view(RandomSearch(samples=50)(problem)).argmax(1)
    tensor([1])
    """

    samples: int = 1000
    loss: Loss = margin
    batch: int = 1024

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Tensor:
        problem = problem.black_box()
        tracker, drawn, batch = BestTracker(problem, self.loss), 0, min(self.batch, rows_at_once(problem.x))
        while drawn < self.samples and len(rows := tracker.active_rows()):
            times = max(1, min(self.samples - drawn, batch // len(rows)))
            owner = rows.repeat(times)
            with use_keys(problem.keys.select(rows).repeat(times, first=drawn)):
                x_adv = problem.threat.start(problem.x[owner])
                values = problem.objective(self.loss, owner)(x_adv)
            for candidates, value in zip(x_adv.split(len(rows)), values.split(len(rows)), strict=True):
                left = tracker.active[rows]
                tracker.update(rows[left], candidates[left], value[left])
            drawn += times
        return tracker.best
