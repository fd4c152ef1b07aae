"""The adaptive attack of an audit: searches through the views that proved useful."""

from __future__ import annotations

from itertools import chain

from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.snapped import over_grid
from unmask.attacks.combined.time_limited import Doubling, TimeLimited
from unmask.attacks.combined.with_view import WithView
from unmask.attacks.problem import Attack
from unmask.auditing.attacks.conditions import Conditions
from unmask.auditing.budgets import BUDGETS
from unmask.auditing.views.candidate_view import CandidateView
from unmask.auditing.views.pilot_result import PilotResult
from unmask.auditing.views.view_selection import estimator
from unmask.losses import cross_entropy, dlr, margin, targeted_dlr, targeted_margin

__all__ = ["adaptive", "by_pilot", "through_view", "timed"]

_AIMS = 9
"""Classes that a search of a model that refuses aims at, at most."""

_REFUSING = 0.5
"""Signal of a gradient, at most, of a random model that refuses: verdicts differ between draws where slopes do not."""

_SHORT = ((10, 0.25, 2), (30, 0.1, 32))
"""Steps, their size, and the draws of a gradient at most, of the short searches of a random model."""


def adaptive(conditions: Conditions) -> Ensemble:
    """Searches through the best views, on several losses."""
    attacks = (
        _through(one, conditions, first=place == 0 or (one.refusal_gradient and not conditions.random))
        for place, one in enumerate(conditions.useful)
    )
    return Ensemble(tuple(chain.from_iterable(attacks)), conditions.draws)


def timed(conditions: Conditions) -> Attack:
    """The adaptive attack; with a budget of seconds again and again, every other time with twice the steps."""
    seconds = conditions.budget.seconds
    if seconds is None:
        return adaptive(conditions)
    quick = conditions.within(steps=BUDGETS["quick"].steps, restarts=1)
    first, again = adaptive(quick.within(targets=0)), adaptive(quick)
    return TimeLimited(seconds, Doubling(first, again), draws=conditions.draws)


def _through(one: PilotResult, conditions: Conditions, *, first: bool) -> list[Attack]:
    """Searches through a view: of margins, and of other losses through the best view.

    Of others than the best view the plain attack climbs cross entropy through the model's own gradient, so that only
    views are left to do it here. In L1 balls APGD breaks many more examples on the margin than PGD does, and than it
    does itself on DLR. So it does of a model that refuses, where PGD turns from the class to the refusal and back. Such
    a model is also searched for each of several classes: it may accept some wrong classes more easily than the nearest.
    """
    if conditions.random:
        return [by_pilot(one, attack) for attack in _of_random(one, conditions, first=first)]
    classes, budget = conditions.classes, conditions.budget
    attacks: list[Attack] = [pgd(budget.steps, margin, rel_step_size=0.1)] * budget.restarts
    if first:
        if one.view.view is not None:
            attacks.append(APGD(budget.steps, cross_entropy))
        if conditions.norm == "l1" or conditions.refuses:
            attacks.append(APGD(budget.steps, margin))
        if conditions.norm != "l1" and classes >= 3:
            attacks.append(APGD(budget.steps, dlr))
        if budget.targets and classes >= 4:
            aims = min(budget.targets, classes - 1)
            attacks.append(APGD(budget.steps // 2, targeted_dlr, targets=aims))
        if conditions.refuses and classes >= 3:
            aims = min(_AIMS, classes - 1)
            attacks.append(APGD(budget.steps // 2, targeted_margin, targets=aims))
    return [by_pilot(one, attack) for attack in attacks]


def _of_random(one: PilotResult, conditions: Conditions, *, first: bool) -> list[Attack]:
    """Searches of a random model, which go on to the end: what has just crossed the boundary is back in other draws.

    The first of them are short, and the very first averages over few draws, so that the dear ones are for what is not
    broken in all draws by then. A model that refuses is searched for each of several classes too.
    """
    budget, signal = conditions.budget, min(one.signal, _REFUSING) if conditions.refuses else one.signal
    how = estimator(signal, one.per_draw_passes)
    attacks: list[Attack] = [
        pgd(steps, margin, estimator(signal, one.per_draw_passes, most), rel_step_size=size, early_stop=False)
        for steps, size, most in _SHORT
    ]
    if first:
        attacks.append(APGD(budget.steps // 2, margin, how, restarts=max(1, budget.restarts // 2), early_stop=False))
    if one.refusal_gradient and conditions.classes >= 3:
        aims = min(_AIMS, conditions.classes - 1)
        attacks.append(APGD(budget.steps // 4, targeted_margin, how, targets=aims, early_stop=False))
    return attacks


def by_pilot(one: PilotResult, attack: Attack) -> Attack:
    """``attack`` through the view of a pilot search, over the grid of that search."""
    return over_grid(one.levels, through_view(one.view, attack))


def through_view(candidate: CandidateView, attack: Attack) -> Attack:
    """``attack`` through a view, if any; if the view fails in it, the other attacks go on."""
    return attack if candidate.view is None else WithView(candidate.view, attack, candidate.name)
