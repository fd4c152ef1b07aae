"""What the attacks of an audit are made for: the pilot's results, the model, the ball and the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from unmask.auditing.budgets import Budget
from unmask.auditing.views.candidate_view import OWN_GRADIENT
from unmask.auditing.views.pilot_result import PilotResult

__all__ = ["Conditions"]

_DRAWS = 16
"""Over which candidates for a random model are compared."""


@dataclass(frozen=True)
class Conditions:
    """What the attacks of an audit are made for.

    Args:
        results: of the pilot, best first.
        classes: of the model.
        norm: of the ball.
        random: whether verdicts need several draws.
        refusal_views: views with a gradient of the model's refusals that are used, at least, where there are as many:
            what a search without it finds, the model may refuse.
    """

    results: Sequence[PilotResult]
    classes: int
    budget: Budget
    norm: str
    random: bool
    refusal_views: int = 2

    @property
    def useful(self) -> list[PilotResult]:
        """The best views, as many as the budget allows, and of a model that refuses the best with a gradient of its
        refusals; of those that are as good after a few steps, the simplest.
        """
        tried = [one for one in self.results if not one.error]
        chosen = tried[: self.budget.views]
        more = [one for one in tried if one.refusal_gradient and one not in chosen]
        more.sort(key=lambda one: (not one.complete, one.robust_accuracy, len(one.view.code)))
        return [*chosen, *more[: max(0, self.refusal_views - sum(one.refusal_gradient for one in chosen))]]

    @property
    def refuses(self) -> bool:
        """Whether a view has a gradient of the model's refusals."""
        return any(one.refusal_gradient for one in self.results)

    @property
    def refused(self) -> str:
        """Why torch cannot differentiate the model as it is, where it cannot."""
        return next((one.error for one in self.results if one.view == OWN_GRADIENT and not one.levels), "")

    @property
    def draws(self) -> int:
        """Over which candidates are compared."""
        return _DRAWS if self.random else 1

    def within(self, **limits: Any) -> Conditions:
        """The same with another budget."""
        return replace(self, budget=replace(self.budget, **limits))
