"""The problem of an attack, and its result: the best point of each example, and which examples are still robust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.gradients.bpda import View, substitute
from unmask.losses import success_threshold
from unmask.randomness import Keys, use_keys
from unmask.threats import Threat
from unmask.types import Estimator, Loss, Model, Objective, Output, as_output

__all__ = ["Attack", "BestTracker", "Problem", "fresh_value", "value_only"]


@dataclass(frozen=True)
class Problem:
    """B examples to be attacked: one view of the defense, one ball, one judge.

    An attack optimises ``view``. Only ``is_broken`` decides whether it succeeds, by a query of the judge on the
    untouched defense: ``is_broken(rows, x_adv, step)`` takes the numbers of some examples (M,), a candidate for each,
    and the step, and returns (M,) bool.
    """

    view: Model
    x: Tensor  # (B, C, H, W) in [0, 1]
    y: Tensor  # (B,)
    threat: Threat
    keys: Keys
    is_broken: Callable[[Tensor, Tensor, int], Tensor]
    scores: Model | None = None  # the defense itself, in full precision, for attacks that need no gradient
    views: Callable[[View], Model] | None = None  # further views of the defense, for :class:`WithView`
    on_candidate: Callable[[Tensor, Tensor, Model], None] | None = None  # see :class:`TrajectoryRecorder`
    on_gradient: Callable[[Tensor, Tensor], None] | None = None  # called with rows (M,) and gradients (M, ...)
    on_failure: Callable[[str, Exception], None] | None = None  # called with what is left out, and why
    random: bool = False  # whether the defense draws: values are noisy, and a verdict costs many draws
    candidate: Callable[[Tensor, Tensor], Tensor] | None = None  # what points (M, ...) of the examples (M,) stand for

    def should_query_judge(self, step: int, last: int) -> bool:
        """Whether a gradient search queries the judge at this step: on random defenses every fourth, and the last."""
        return not self.random or step == last or step % 4 == 0

    def objective(self, loss: Loss, rows: Tensor, labels: Tensor | None = None) -> Objective:
        """The objective, on images, of some of the examples; ``labels`` replaces ``y`` for targeted losses."""
        wanted, owners = (self.y if labels is None else labels)[rows], rows

        def objective(z: Tensor, rows: Tensor | None = None) -> Tensor:
            answer = self.answer(z, owners if rows is None else owners[rows])
            return loss(answer, wanted if rows is None else wanted[rows])

        return objective

    def answer(self, z: Tensor, rows: Tensor) -> Output:
        """What the view answers to what the points (M, ...) of the examples (M,) stand for."""
        if self.candidate is not None:
            z = substitute(self.candidate(z.detach(), rows), z)
        return as_output(self.view(z))

    def through(self, view: View) -> Problem:
        """The same problem through a view of the defense; UnmaskError where the problem offers none."""
        if self.views is None:
            raise UnmaskError("this problem offers no views of its defense", "use unmask.run_attack")
        return replace(self, view=self.views(view))

    def with_view(self, view: Model) -> Problem:
        """The same problem through another view, which also gives the scores."""
        return replace(self, view=view, scores=None)

    def black_box(self) -> Problem:
        """The same problem on the defense's own scores, if they are given."""
        return self if self.scores is None else self.with_view(self.scores)

    def subset(self, rows: Tensor) -> Problem:
        """The same problem for some of the examples only, numbered from 0."""
        note, on_gradient, candidate = self.on_candidate, self.on_gradient, self.candidate
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            keys=self.keys.select(rows),
            is_broken=lambda some, x_adv, when: self.is_broken(rows[some], x_adv, when),
            on_candidate=note and (lambda some, x_adv, view: note(rows[some], x_adv, view)),
            on_gradient=on_gradient and (lambda some, gradient: on_gradient(rows[some], gradient)),
            candidate=candidate and (lambda points, some: candidate(points, rows[some])),
        )


def value_only(objective: Objective) -> Objective:
    """The objective without its graph: an estimator then takes no backward pass."""

    def values(z: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return objective(z.detach(), rows)  # models ask whether it requires a gradient

    return values


def fresh_value(estimator: Estimator, objective: Objective, keys: Keys) -> Callable[[Tensor], Tensor]:
    """The objective's value (M,) of images (M, ...), over the same fresh draws in each call."""

    def value(images: Tensor) -> Tensor:
        with use_keys(keys.fold_in("again")):
            return estimator(value_only(objective), images)[0]

    return value


Attack = Callable[[Problem], Tensor]
"""Takes a problem to candidates (B, C, H, W), one an example; the clean image where it found none."""


class BestTracker:
    """The best candidate of each example so far, and which examples are not yet broken.

    Args:
        problem: whose examples.
        loss: the loss by which candidates are compared.
        early_stop: whether an example that the judge finds broken leaves the search.
        bounded: whether the values are the loss itself: the judge is queried for those that reach
            ``success_threshold(loss)``. Otherwise it is queried for those that are better than all before.
        patience: largest number of updates without a query after the judge has found an example robust: first none,
            then 1, 3, 7 and so on. Verdicts on a random defense cost many draws, and rarely change at once.
    """

    def __init__(
        self, problem: Problem, loss: Loss, *, early_stop: bool = True, bounded: bool = True, patience: int = 0
    ) -> None:
        self.problem = problem
        self.best = problem.x.clone()
        self.value = torch.full_like(problem.y, -torch.inf, dtype=torch.float32)
        self.active = torch.ones_like(problem.y, dtype=torch.bool)
        self._early_stop = early_stop
        self._least = max(success_threshold(loss), torch.finfo(torch.float32).min) if bounded else None
        self._asked = 0
        self._patience = patience
        self._wait, self._until = torch.zeros_like(problem.y), torch.zeros_like(problem.y)

    @cached_property
    def _fair(self) -> tuple[Tensor, Tensor]:
        """Last images and values of searches on a random defense: see :meth:`reselect_on_fresh_draws`."""
        return self.problem.x.clone(), torch.full_like(self.value, -torch.inf)

    def active_rows(self) -> Tensor:
        """The numbers (M,) of the examples that are still in the search."""
        return self.active.nonzero().squeeze(1)

    def usable(self, rows: Tensor, gradient: Tensor, *, report: bool = True) -> Tensor:
        """The gradients (M, ...) of the examples ``rows`` (M,), elements that are NaN or infinite replaced by 0.

        ``problem.on_gradient`` is called with the gradients as they were, where ``report`` says so.
        """
        if report and self.problem.on_gradient is not None:
            self.problem.on_gradient(rows, gradient)
        return gradient.nan_to_num(0.0, 0.0, 0.0)

    def update(self, rows: Tensor, x_adv: Tensor, values: Tensor, *, ask: bool = True) -> Tensor | None:
        """Keep the better candidates; returns a mask of the examples that stay in the search, or None for all.

        ``x_adv`` must lie in the ball. Values that are not a number count as worst. The judge is queried only where
        ``ask`` allows it.
        """
        if self.problem.on_candidate is not None:
            self.problem.on_candidate(rows, x_adv, self.problem.view)
        values = values.float()
        better = (values > self.value[rows]).nonzero().squeeze(1)  # NaN is not
        if len(better) == len(rows):
            self.best.index_copy_(0, rows, x_adv)
        else:
            self.best.index_copy_(0, rows[better], x_adv.index_select(0, better))
        self.value[rows[better]] = values[better]
        if not self._early_stop or not ask:
            return None
        return self._ask(rows, x_adv, better if self._least is None else (values >= self._least).nonzero().squeeze(1))

    def reselect_on_fresh_draws(self, rows: Tensor, last: Tensor, value: Callable[[Tensor], Tensor]) -> None:
        """End a search of a random defense, whose best point is partly best by chance: compare fresh values.

        The best point and the last are compared by ``value``, images (M, ...) to (M,), with the same draws for both;
        then with the results of earlier searches.
        """
        best, (images, values) = self.best[rows], self._fair
        for candidate in (last, best):
            fresh = value(candidate).float()
            better = fresh > values[rows]  # NaN is not
            images[rows[better]], values[rows[better]] = candidate[better], fresh[better]
        self.best[rows], self.value[rows] = images[rows], values[rows]

    def mark_broken(self, rows: Tensor, x_adv: Tensor) -> None:
        """The judge has found these broken: keep the candidates, whatever their values, and search no more."""
        self.best[rows] = x_adv
        self.active[rows] = False

    def _ask(self, rows: Tensor, x_adv: Tensor, chosen: Tensor) -> Tensor | None:
        self._asked += 1
        if self._patience:
            chosen = self._due(rows, chosen)
        if not len(chosen):
            return None
        fallen = chosen[self.problem.is_broken(rows[chosen], x_adv[chosen], self._asked)]
        if not len(fallen):
            return None
        self.mark_broken(rows[fallen], x_adv[fallen])
        keep = torch.ones_like(rows, dtype=torch.bool)
        keep[fallen] = False
        return keep

    def _due(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """Which examples have waited long enough; if they are still robust, they wait longer."""
        due = chosen[self._until[rows[chosen]] < self._asked]
        waited = self._wait[rows[due]]
        self._until[rows[due]] = self._asked + waited
        self._wait[rows[due]] = (2 * waited + 1).clamp(max=self._patience)
        return due
