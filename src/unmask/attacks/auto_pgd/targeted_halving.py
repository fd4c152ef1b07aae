"""Targeted Auto-PGD with successive halving: few steps towards many classes, then more towards the best of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unmask.attacks.auto_pgd.apgd import APGD, Reached, likely_targets
from unmask.attacks.auto_pgd.schedules import SCHEDULES
from unmask.attacks.problem import BestTracker, Problem
from unmask.gradients.autograd import autograd
from unmask.losses import targeted_probability_margin
from unmask.types import Estimator, Loss

__all__ = ["Round", "TargetedHalving"]


class Round(NamedTuple):
    """Searches towards ``targets`` classes, of ``steps`` gradients each; the first step is ``first`` times APGD's."""

    targets: int
    steps: int
    first: float = 1.0


@dataclass(frozen=True)
class TargetedHalving:
    """Searches by Auto-PGD (Croce & Hein, ICML 2020), allotted by successive halving (Jamieson & Talwalkar, 2016).

    The first round searches towards the most likely wrong classes of the clean image, each from a random point of the
    ball. Each further round goes on from the best points of the round before, towards those classes alone for which
    the loss is largest. Thus most gradients go to the most promising classes of each example.

    Args:
        rounds: targets and steps of each, with fewer and fewer targets.
        loss: a targeted loss, whose values for several targets of one example can be compared.
        estimator: how to get the gradient.
        early_stop: examples that the judge finds broken leave the search.

    >>> TargetedHalving((Round(9, 8), Round(3, 16, 0.25))).gradients
    120
    """

    rounds: tuple[Round, ...] = (Round(9, 8), Round(3, 16, 0.25), Round(1, 32, 0.125))
    loss: Loss = targeted_probability_margin
    estimator: Estimator = autograd
    early_stop: bool = True

    @property
    def gradients(self) -> int:
        """Of an example that is not broken, at most."""
        return sum(one.targets * one.steps for one in self.rounds)

    def __call__(self, problem: Problem) -> Tensor:
        tracker, run = BestTracker(problem, self.loss, early_stop=self.early_stop), 0
        schedule = SCHEDULES[problem.threat.norm]
        targets, points = likely_targets(problem, self.rounds[0].targets), None
        for one, following in zip(self.rounds, (*self.rounds[1:], Round(0, 0)), strict=True):
            attack = APGD(one.steps, self.loss, self.estimator, schedule=schedule.shortened(one.first))
            count = min(one.targets, targets.shape[1])
            leaders = _Leaders(problem.x, min(count, following.targets))
            for place in range(count):
                rows = tracker.active_rows()
                if not len(rows):
                    return tracker.best
                labels = torch.stack((problem.y, targets[:, place]), 1)
                start = None if points is None else points[rows, place]
                leaders.note(attack.search(problem, tracker, rows, labels, run, start), targets[:, place])
                run += 1
            targets, points = leaders.targets, leaders.points
        return tracker.best


class _Leaders:
    """For each of B examples the ``count`` targets that searches came closest to, and the points that they reached."""

    def __init__(self, x: Tensor, count: int) -> None:
        self.values = x.new_full((len(x), count), -torch.inf, dtype=torch.float32)
        self.targets = torch.zeros_like(self.values, dtype=torch.long)
        self.points = x[:, None].expand(-1, count, *x.shape[1:]).clone()

    def note(self, reached: Reached, targets: Tensor) -> None:
        """Put what was reached, of targets (B,), in the place of the worst where it is better."""
        if not self.values.shape[1]:
            return
        least, place = self.values[reached.rows].min(1)
        better = reached.values.float() > least
        at = reached.rows[better], place[better]
        self.values[at], self.targets[at], self.points[at] = (
            reached.values[better].float(),
            targets[at[0]],
            reached.points[better],
        )
