"""The one loop of gradient attacks. FGSM, PGD, momentum, C&W and latent search are its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.attacks.optimizers import Optimizer, Steepest
from unmask.attacks.penalties import Penalty
from unmask.attacks.problem import BestTracker, Problem, fresh_value, value_only
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import substitute
from unmask.gradients.spaces import Pixels, Space
from unmask.losses import cross_entropy
from unmask.progress import track
from unmask.randomness import use_keys
from unmask.threats import Threat
from unmask.types import Estimator, Loss, Objective

__all__ = ["GradientAttack"]


@dataclass(frozen=True)
class GradientAttack:
    """Gradient ascent on a loss that keeps the best point of each example; broken examples leave the search.

    Args:
        steps: gradients per restart.
        loss: what is maximised.
        optimizer: the update rule, such as ``Steepest()`` or ``Adam()``.
        estimator: how the gradient is estimated: ``autograd``, ``EOT(...)``, ``SPSA(...)``.
        space: the coordinates that are optimised: ``Pixels()``, ``Tanh()``, ``Latent(generator, size)``.
        restarts: searches per example; the first starts at the image itself unless ``random_start``.
        random_start: start at a random point of the ball, also in the first search.
        penalty: a term that draws the search towards the image, for spaces without a projection.
        early_stop: examples that the judge finds broken leave the search.
    """

    steps: int = 40
    loss: Loss = cross_entropy
    optimizer: Optimizer = Steepest()
    estimator: Estimator = autograd
    space: Space = Pixels()
    restarts: int = 1
    random_start: bool = True
    penalty: Penalty | None = None
    early_stop: bool = True

    def __call__(self, problem: Problem) -> Tensor:
        tracker = BestTracker(problem, self.loss, early_stop=self.early_stop, bounded=self.penalty is None)
        for restart in range(self.restarts):
            rows = tracker.active_rows()
            if not len(rows):
                break
            self._search(problem, tracker, rows, restart)
        return tracker.best

    def _search(self, problem: Problem, tracker: BestTracker, rows: Tensor, restart: int) -> None:
        threat, x, keys = problem.threat, problem.x[rows], problem.keys.select(rows).fold_in(restart)
        radius = threat.radius(x)
        with use_keys(keys.fold_in("start")):
            z = self.space.start(x, threat, at_random=self.random_start or restart > 0)
        state = self.optimizer.init(z)
        for step in track(range(self.steps + 1), "step"):
            objective = self._objective(problem, rows, x, restart)
            with use_keys(keys.fold_in(step)):
                values, direction = self.estimator(value_only(objective) if step == self.steps else objective, z)
            if step < self.steps:
                direction = tracker.usable(rows, direction, report=self.penalty is None)
            if step == 0 and self.penalty is not None:  # which has a gradient where the loss has none
                with use_keys(keys.fold_in("loss alone")):
                    alone = self._objective(problem, rows, x, restart, penalised=False)
                    tracker.usable(rows, self.estimator(alone, z)[1])
            ask = problem.should_query_judge(step, self.steps)
            keep = tracker.update(rows, self._candidate(z, x, threat), values, ask=ask)
            if keep is not None:
                rows, x, z, direction, radius = (t[keep] for t in (rows, x, z, direction, radius))
                state, keys = tuple(s[keep] for s in state), keys.select(keep)
            if step == self.steps or not len(rows):
                break
            z, state = self.optimizer.update(
                z, direction, state, step, threat, radius, x if self.space.bounded else None
            )
            z = self.space.retract(z, x, threat)
        if problem.random and self.penalty is None and len(rows):
            tracker.reselect_on_fresh_draws(
                rows,
                self._candidate(z, x, threat),
                fresh_value(self.estimator, problem.objective(self.loss, rows), keys),
            )

    @torch.no_grad()
    def _candidate(self, z: Tensor, x: Tensor, threat: Threat) -> Tensor:
        image = self.space.decode(z)
        return image if self.space.bounded else threat.project(image, x)

    def _objective(
        self, problem: Problem, rows: Tensor, x: Tensor, restart: int, *, penalised: bool = True
    ) -> Objective:
        """The loss of the candidate at given coordinates, minus the penalty, as a function of the coordinates."""
        goal, threat = problem.objective(self.loss, rows), problem.threat
        penalty = self.penalty if penalised else None

        def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
            image = self.space.decode(z)
            if self.space.bounded:
                return goal(image, rows)
            near = x if rows is None else x[rows]
            values = goal(substitute(threat.project(image.detach(), near), image), rows)
            if penalty is not None:
                values = values - penalty.weight * penalty.factor**restart * penalty.term(image, near, threat)
            return values

        return objective
