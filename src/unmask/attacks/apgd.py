"""Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unmask.attacks.problem import Ledger, Problem, again, value_only
from unmask.gradients.autograd import autograd
from unmask.losses import cross_entropy
from unmask.randomness import drawing
from unmask.threats import Threat
from unmask.types import Estimator, Loss, as_output
from unmask.watching import counted

__all__ = ["APGD"]

_MOMENTUM = 0.75  # weight of the new step against the last one


@dataclass(frozen=True)
class APGD:
    """Auto-PGD (Croce & Hein, ICML 2020): steps of 2 eps, halved where they no longer help.

    At checkpoints that lie closer and closer together an example's step is halved, and its search
    goes back to its best point, if fewer than ``rho`` of the steps since the last checkpoint
    raised the loss, or if neither step nor best loss changed since then.

    L1 takes the same scheme with the sparse steps of :meth:`unmask.threats.L1.ascent`. The L1-APGD of
    Croce & Hein (ICML 2021) differs: it adapts the sparsity of a step to that of the best point,
    divides steps by 1.5 with a floor of eps / 10, and first searches balls of 3 eps and 2 eps.

    Args:
        steps: gradients per search.
        loss: what is maximised; with ``targets`` a targeted loss, whose labels are (B, 2).
        estimator: how to get the gradient: ``autograd``, ``EOT(...)``, ``SPSA(...)``.
        restarts: searches per example, or per example and target, each from a random point of the ball.
        rho: share of the steps that must raise the loss.
        targets: 0 for the untargeted attack; else each search aims at one of this many wrong
            classes, the most likely ones for the clean image, one after the other.
        early_stop: examples that the judge finds broken leave the search.

    >>> from unmask.randomness import stream
    >>> from unmask.threats import Linf
    >>> view, x, y = torch.nn.Flatten(), torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    >>> broken = lambda rows, x_adv, when: view(x_adv).argmax(1) != y[rows]
    >>> problem = Problem(view, x, y, Linf(0.2), stream(0, [0], "attack"), broken)
    >>> APGD(steps=10, early_stop=False)(problem)
    tensor([[[[0.4000, 0.7000]]]])
    """

    steps: int = 100
    loss: Loss = cross_entropy
    estimator: Estimator = autograd
    restarts: int = 1
    rho: float = 0.75
    targets: int = 0
    early_stop: bool = True

    def __call__(self, problem: Problem) -> Tensor:
        ledger = Ledger(problem, self.loss, early_stop=self.early_stop)
        labels = _aims(problem, self.targets) if self.targets else [problem.y]
        for run in range(self.restarts * len(labels)):
            rows = ledger.rows()
            if not len(rows):
                break
            self._search(problem, ledger, rows, labels[run % len(labels)], run)
        return ledger.best

    def _search(self, problem: Problem, ledger: Ledger, rows: Tensor, labels: Tensor, run: int) -> None:
        threat, x, keys = problem.threat, problem.x[rows], problem.keys.select(rows).fold(run)
        with drawing(keys.fold("start")):
            walk = _begin(threat.start(x), 2 * threat.radius(x))
        intervals = _intervals(self.steps)
        for step in counted(range(self.steps + 1), "step"):
            objective = problem.goal(self.loss, rows, labels)
            with drawing(keys.fold(step)):
                found = self.estimator(value_only(objective) if step == self.steps else objective, walk.at)
            direction = found[1] if step == self.steps else ledger.usable(rows, found[1])
            keep = ledger.offer(rows, walk.at, found[0], ask=problem.asks(step, self.steps))
            walk = walk.note(found[0], direction)
            if keep is not None:
                rows, x, keys = rows[keep], x[keep], keys.select(keep)
                walk = _Walk(*(state[keep] for state in walk))
            if step == self.steps or not len(rows):
                break
            if step in intervals:
                walk = walk.check(self.rho * intervals[step])
            walk = walk.move(threat, x, _MOMENTUM if step else 1.0)
        if problem.random and len(rows):
            ledger.settle(rows, walk.at, again(self.estimator, problem.goal(self.loss, rows, labels), keys))


class _Walk(NamedTuple):
    """Where M searches are, what they have seen, and how they move."""

    at: Tensor  # (M, ...)
    before: Tensor  # (M, ...), the point before this one
    value: Tensor  # (M,)
    direction: Tensor  # (M, ...)
    best: Tensor  # (M, ...)
    best_value: Tensor  # (M,)
    best_direction: Tensor  # (M, ...)
    length: Tensor  # (M,) of a step
    rises: Tensor  # (M,) steps since the last checkpoint that raised the value
    halved: Tensor  # (M,) bool, at the last checkpoint
    checked: Tensor  # (M,) best value at the last checkpoint

    def note(self, value: Tensor, direction: Tensor) -> _Walk:
        """Value and direction of ascent at this point."""
        better = value > self.best_value
        return self._replace(
            value=value,
            direction=direction,
            best=_where(better, self.at, self.best),
            best_value=_where(better, value, self.best_value),
            best_direction=_where(better, direction, self.best_direction),
            rises=self.rises + (value > self.value),
        )

    def check(self, least: float) -> _Walk:
        """Halve the step, back at the best point, where the last steps did not help."""
        stuck = ~self.halved & (self.best_value <= self.checked)
        halve = (self.rises < least) | stuck
        return self._replace(
            at=_where(halve, self.best, self.at),
            value=_where(halve, self.best_value, self.value),
            direction=_where(halve, self.best_direction, self.direction),
            length=_where(halve, self.length / 2, self.length),
            rises=torch.zeros_like(self.rises),
            halved=halve,
            checked=self.best_value,
        )

    def move(self, threat: Threat, x: Tensor, share: float) -> _Walk:
        """A step along the direction and, for the rest of the ``share``, along the last move."""
        step = self.length.view(-1, *[1] * (x.ndim - 1)) * threat.ascent(self.direction)
        ahead = threat.project(self.at + step, x)
        if share < 1:
            ahead = threat.project(self.at + share * (ahead - self.at) + (1 - share) * (self.at - self.before), x)
        return self._replace(at=ahead, before=self.at)


def _begin(at: Tensor, length: Tensor) -> _Walk:
    """The first value is no rise, and the first checkpoint looks at rises alone, as in the authors' code."""
    high, none = torch.full_like(length, torch.inf), torch.zeros_like(at)
    first = torch.ones_like(length, dtype=torch.bool)
    return _Walk(at, at, high, none, at, -high, none, length, torch.zeros_like(length), first, high)


def _intervals(steps: int) -> dict[int, int]:
    """Checkpoints, with the number of steps since the one before.

    They come after 22 % of the steps, then after 3 % fewer each time, but at least 6 %.
    """
    intervals, percent, gap, last = {}, 22, 22, 0
    while percent < 100:
        mark = -(-percent * steps // 100)
        if mark > last:
            intervals[mark], last = mark - last, mark
        gap = max(gap - 3, 6)
        percent += gap
    return intervals


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)


@torch.no_grad()
def _aims(problem: Problem, count: int) -> list[Tensor]:
    """For each target the labels (B, 2): the true class, and the k-th most likely wrong one."""
    with drawing(problem.keys.fold("targets")):
        logits = as_output(problem.view(problem.x)).logits
    likely = logits.scatter(1, problem.y[:, None], -torch.inf).argsort(stable=True, descending=True)
    return [torch.stack((problem.y, target), 1) for target in likely[:, :-1].T[:count]]
