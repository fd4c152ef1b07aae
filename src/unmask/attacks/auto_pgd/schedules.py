"""How long, and among how many elements, the steps of Auto-PGD are: dense steps for Linf and L2, sparse ones for L1."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from unmask.attacks.auto_pgd.walk import Walk, begin, where
from unmask.randomness import normal
from unmask.threats import Threat
from unmask.threats.projections import changed_inside

__all__ = ["SCHEDULES", "Halving", "Schedule", "Sparser"]


class Schedule(Protocol):
    """Rules by which each example's search chooses its own steps."""

    @property
    def momentum(self) -> float:
        """Weight of the new step against the last one, from the second step on."""

    def shortened(self, share: float) -> Schedule:
        """The same for a search that begins at a good point, whose first steps are so much shorter."""

    def phases(self, steps: int) -> list[tuple[float, int]]:
        """Radii, as multiples of eps, of the balls to be searched one after the other, with the steps in each."""

    def checkpoints(self, steps: int) -> dict[int, int]:
        """Steps of a phase before which ``check`` is asked, with the number of steps since the one before."""

    def start(self, threat: Threat, x: Tensor) -> Tensor:
        """A random point of ball and box around each image, drawn from ``unmask.randomness``."""

    def init(self, at: Tensor, x: Tensor, radius: Tensor) -> Walk:
        """Searches at ``at`` (M, ...) around ``x``, in balls of a radius (M,)."""

    def check(self, walk: Walk, x: Tensor, radius: Tensor, gap: int) -> Walk:
        """Other steps, perhaps back at the best point, ``gap`` steps after the last checkpoint."""


@dataclass(frozen=True)
class Halving:
    """Steps of ``first`` eps at first, halved where they no longer help (Croce & Hein, ICML 2020).

    At checkpoints that lie closer and closer together an example's step is halved, and its search
    goes back to its best point, if fewer than ``rho`` of the steps since the last checkpoint
    raised the loss, or if neither step nor best loss changed since then.

    >>> Halving().checkpoints(100)[22], Halving().phases(100)
    (22, [(1.0, 100)])
    """

    rho: float = 0.75
    momentum: float = 0.75
    first: float = 2.0

    def phases(self, steps: int) -> list[tuple[float, int]]:
        return [(1.0, steps)]

    def shortened(self, share: float) -> Halving:
        return replace(self, first=share * self.first)

    def checkpoints(self, steps: int) -> dict[int, int]:
        """They come after 22 % of the steps, then after 3 % fewer each time, but at least 6 %."""
        intervals, percent, gap, last = {}, 22, 22, 0
        while percent < 100:
            mark = -(-percent * steps // 100)
            if mark > last:
                intervals[mark], last = mark - last, mark
            gap = max(gap - 3, 6)
            percent += gap
        return intervals

    def start(self, threat: Threat, x: Tensor) -> Tensor:
        return threat.start(x)

    def init(self, at: Tensor, x: Tensor, radius: Tensor) -> Walk:
        return begin(at, self.first * radius, torch.ones_like(radius), torch.full_like(radius, torch.inf))

    def check(self, walk: Walk, x: Tensor, radius: Tensor, gap: int) -> Walk:
        stuck = ~walk.halved & (walk.best_value <= walk.checked)
        halve = (walk.rises < self.rho * gap) | stuck
        return walk.back(halve)._replace(
            length=where(halve, walk.length / 2, walk.length),
            rises=torch.zeros_like(walk.rises),
            halved=halve,
            checked=walk.best_value,
        )


@dataclass(frozen=True)
class Sparser:
    """Steps of eps along few elements, and along fewer as the best point settles on some (Croce & Hein, ICML 2021).

    A checkpoint comes after every 4 % of the steps. There a step is spread over 1 / ``factor`` as many elements as the
    best point has changed. Where these are fewer than 95 % of those at the last checkpoint, the search goes back to its
    best point and to steps of eps; elsewhere the step is divided by ``factor``, down to eps / 10. Balls of 3 eps and
    of 2 eps are searched before that of eps, each from the best point of the one before, projected.

    Elements at an edge of the box are not among those counted, here as in a step: the paper counts them, which
    keeps steps wide where the box holds much of the change.

    >>> Sparser().phases(100), list(Sparser().checkpoints(40))[:3]
    ([(3.0, 30), (2.0, 30), (1.0, 40)], [1, 2, 3])
    """

    factor: float = 1.5
    momentum: float = 1.0

    def shortened(self, share: float) -> Sparser:
        return self

    def phases(self, steps: int) -> list[tuple[float, int]]:
        wide = 3 * steps // 10
        return [(3.0, wide), (2.0, wide), (1.0, steps - 2 * wide)] if wide else [(1.0, steps)]

    def checkpoints(self, steps: int) -> dict[int, int]:
        gap = max(1, steps // 25)
        return dict.fromkeys(range(gap, steps, gap), gap)

    def start(self, threat: Threat, x: Tensor) -> Tensor:
        """Normal noise, projected, which changes few elements; a uniform point of the ball changes all."""
        return threat.project(x + normal(x.shape, x), x)

    def init(self, at: Tensor, x: Tensor, radius: Tensor) -> Walk:
        changed = changed_inside(at, x)
        size = math.prod(x.shape[1:])
        return begin(at, radius, (changed / self.factor).clamp(1, max(1, size / 5)).to(radius.dtype), changed)

    def check(self, walk: Walk, x: Tensor, radius: Tensor, gap: int) -> Walk:
        changed = changed_inside(walk.best, x)
        sparser = changed < 0.95 * walk.checked
        return walk.back(sparser)._replace(
            length=where(sparser, radius, torch.maximum(walk.length / self.factor, radius / 10)),
            width=(changed / self.factor).clamp_min(1),
            checked=changed,
        )


SCHEDULES: dict[str, Schedule] = {"linf": Halving(), "l2": Halving(), "l1": Sparser()}
"""For each norm."""
