"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from unmask.attacks.auto_pgd.schedules import SCHEDULES, Schedule
from unmask.attacks.auto_pgd.walk import Walk
from unmask.attacks.problem import BestTracker, Problem, fresh_value, value_only
from unmask.gradients.autograd import autograd
from unmask.losses import cross_entropy
from unmask.progress import track
from unmask.randomness import use_keys
from unmask.threats import Threat
from unmask.types import Estimator, Loss, as_output

__all__ = ["APGD", "Reached", "likely_targets"]


class Reached(NamedTuple):
    """The best points of a search of M examples that it did not break."""

    rows: Tensor  # (M,) numbers of the examples
    points: Tensor  # (M, C, H, W)
    values: Tensor  # (M,) of the loss there


@dataclass(frozen=True)
class APGD:
    """Auto-PGD (Croce & Hein, ICML 2020); L1-APGD (Croce & Hein, ICML 2021) where the ball is an L1 ball.

    Args:
        steps: gradients per search.
        loss: what is maximised; with ``targets`` a targeted loss, whose labels are (B, 2).
        estimator: how to get the gradient: ``autograd``, ``EOT(...)``, ``SPSA(...)``.
        restarts: searches per example, or per example and target, each from a random point of the ball.
        schedule: how a search chooses its steps: ``Halving()`` or ``Sparser()``; None for that of the ball's norm.
        targets: 0 for the untargeted attack; else each search aims at one of this many wrong
            classes, the most likely ones for the clean image, one after the other.
        early_stop: examples that the judge finds broken leave the search.

    >>> from unmask.randomness import make_keys
    >>> from unmask.threats import Linf
    >>> view, x, y = torch.nn.Flatten(), torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    >>> broken = lambda rows, x_adv, when: view(x_adv).argmax(1) != y[rows]
    >>> problem = Problem(view, x, y, Linf(0.2), make_keys(0, [0], "attack"), broken)
    >>> APGD(steps=10, early_stop=False)(problem)
    tensor([[[[0.4000, 0.7000]]]])
    """

    steps: int = 100
    loss: Loss = cross_entropy
    estimator: Estimator = autograd
    restarts: int = 1
    schedule: Schedule | None = None
    targets: int = 0
    early_stop: bool = True

    def __call__(self, problem: Problem) -> Tensor:
        tracker = BestTracker(problem, self.loss, early_stop=self.early_stop)
        labels = _aims(problem, self.targets) if self.targets else [problem.y]
        for run in range(self.restarts * len(labels)):
            rows = tracker.active_rows()
            if not len(rows):
                break
            self.search(problem, tracker, rows, labels[run % len(labels)], run)
        return tracker.best

    def search(
        self,
        problem: Problem,
        tracker: BestTracker,
        rows: Tensor,
        labels: Tensor,
        run: int,
        start: Tensor | None = None,
    ) -> Reached:
        """One search of the examples ``rows`` (M,), of which the judge finds some broken.

        Args:
            problem: of B examples.
            tracker: keeps candidates, and says which examples are broken.
            rows: numbers of examples, each once.
            labels: for the loss, of all B examples.
            run: number of this search, for its own randomness.
            start: where it begins, (M, C, H, W); a random point of the ball where None.
        """
        schedule = self.schedule or SCHEDULES[problem.threat.norm]
        x, keys, done = problem.x[rows], problem.keys.select(rows).fold_in(run), 0
        phases = [(_scaled(problem.threat, scale), steps) for scale, steps in schedule.phases(self.steps)]
        if start is None:
            with use_keys(keys.fold_in("start")):
                start = schedule.start(phases[0][0], x)
        at = start
        for threat, steps in phases:
            walk, last = schedule.init(threat.project(at, x), x, threat.radius(x)), done + steps
            checkpoints = schedule.checkpoints(steps)
            for step in track(range(done, last + 1), "step"):
                objective = problem.objective(self.loss, rows, labels)
                with use_keys(keys.fold_in(step)):
                    found = self.estimator(value_only(objective) if step == last else objective, walk.at)
                direction = found[1] if step == last else tracker.usable(rows, found[1])
                keep = None
                if last == self.steps:  # points of a wider ball are no candidates
                    keep = tracker.update(rows, walk.at, found[0], ask=problem.should_query_judge(step, self.steps))
                walk = walk.note(found[0], direction)
                if keep is not None:
                    rows, x, keys = rows[keep], x[keep], keys.select(keep)
                    walk = Walk(*(state[keep] for state in walk))
                if step == last or not len(rows):
                    break
                if step - done in checkpoints:
                    walk = schedule.check(walk, x, threat.radius(x), checkpoints[step - done])
                walk = walk.move(threat, x, schedule.momentum if step > done else 1.0)
            at, done = walk.best, last
        if problem.random and len(rows):
            tracker.reselect_on_fresh_draws(
                rows, walk.at, fresh_value(self.estimator, problem.objective(self.loss, rows, labels), keys)
            )
        return Reached(rows, walk.best, walk.best_value)


def _scaled(threat: Threat, scale: float) -> Threat:
    return replace(threat, eps=scale * threat.eps)


def _aims(problem: Problem, count: int) -> list[Tensor]:
    """For each target the labels (B, 2): the true class, and the k-th most likely wrong one."""
    return [torch.stack((problem.y, target), 1) for target in likely_targets(problem, count).T]


@torch.no_grad()
def likely_targets(problem: Problem, count: int) -> Tensor:
    """The most likely wrong classes of each clean image, the likeliest first: (B, ``count`` or all of them)."""
    with use_keys(problem.keys.fold_in("targets")):
        logits = as_output(problem.view(problem.x)).logits
    likely = logits.scatter(1, problem.y[:, None], -torch.inf).argsort(stable=True, descending=True)
    return likely[:, :-1][:, :count]
