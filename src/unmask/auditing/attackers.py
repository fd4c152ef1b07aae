"""The attacks of an audit: plain, through the views that proved useful, from other models, by scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from unmask.attacks.aliases import fgsm, latent, pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.random_search import RandomSearch
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.snapped import over_grid
from unmask.attacks.combined.time_limited import Doubling, TimeLimited
from unmask.attacks.combined.with_view import WithView
from unmask.attacks.problem import Attack
from unmask.auditing.budgets import BUDGETS, Budget
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView
from unmask.auditing.views.pilot_result import PilotResult
from unmask.auditing.views.view_selection import estimator
from unmask.cases import AttackSpec
from unmask.gradients.spaces import Latent
from unmask.kinds import Access
from unmask.losses import cross_entropy, dlr, margin, targeted_dlr, targeted_margin

__all__ = ["Conditions", "adaptive", "attackers", "black_box", "controls", "search_by_scores", "transfer"]

_DRAWS = 16
"""Over which candidates for a random model are compared."""

_FEW = 50
"""Queries of the control that compares scores with the plain gradient."""

_RARER = 4
"""By which the queries of a random model are fewer: each is judged in many draws, and says little about the next."""

_AIMS = 9
"""Classes that a search of a model that refuses aims at, at most."""

_SHORT = ((10, 0.25, 2), (30, 0.1, 32))
"""Steps, their size, and the draws of a gradient at most, of the short searches of a random model."""


_in_float32 = partial(AttackSpec, low_precision=False)
"""Models of other people need not bear a narrower type."""


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


def attackers(
    conditions: Conditions, sources: Sequence[CandidateView], spaces: Sequence[Latent]
) -> dict[str, AttackSpec]:
    """By name: "plain", "adaptive" (an ensemble over views), "latent" (given spaces), "transfer", "black-box".

    The adaptive attack of a random model is run on all examples: what the plain attack has just broken in some draws
    stands in others.

    Args:
        sources: what is searched for examples that transfer.
        spaces: of decoders inside the model.
    """
    budget, why = conditions.budget, conditions.refused
    queried = replace(budget, queries=budget.queries // _RARER) if conditions.random else budget
    names = ", ".join(one.name for one in conditions.useful)
    losses = "cross entropy and the margin" if conditions.norm == "l1" else "cross entropy and DLR"
    losses += " and the margin" if conditions.refuses and conditions.norm != "l1" else ""
    losses += ", also targeted DLR" if budget.targets and conditions.classes >= 4 else ""
    losses += ", also the targeted margin" if conditions.refuses and conditions.classes >= 3 else ""
    how = "PGD and APGD on the margin" if conditions.random else f"PGD on the margin, APGD on {losses}"
    searches = _in_float32(f"{how}, through: {names}", lambda _: _timed(conditions))
    return {
        "plain": _in_float32(
            f"a random point, since the model has no gradient of its own: {why}"
            if why
            else "APGD on cross entropy, through the model's own gradient",
            lambda _: RandomSearch(1) if why else APGD(budget.steps),
            plain=True,
        ),
        "adaptive": searches if conditions.random else _left(searches, "plain"),
        **({"latent": _left(on_manifold(conditions, sources, spaces), "adaptive")} if spaces else {}),
        "transfer": transfer(sources, budget),
        "black-box": _left(black_box(queried, conditions.norm), "plain", "adaptive", "transfer"),
    }


def controls(conditions: Conditions) -> dict[str, AttackSpec]:
    """What shows whether those attacks did their work: one step of each; the best view alone, and twice as long."""
    best = conditions.useful[0]
    single = _by(best, fgsm(margin, estimator(best.signal, best.per_draw_passes)))
    once = replace(conditions.within(targets=0, views=1), refusal_views=0)
    twice = once.within(steps=2 * conditions.budget.steps)
    return {
        "plain one step": _in_float32(
            "one step of the plain attack", lambda _: RandomSearch(1) if conditions.refused else fgsm()
        ),
        "one step": _in_float32("one step of the adaptive attack", lambda _: single),
        "few queries": _few_queries(conditions.norm),
        "best view": _in_float32("the adaptive attack through the best view alone", lambda _: adaptive(once)),
        "doubled steps": _in_float32(
            "the adaptive attack with twice the steps, through the best view", lambda _: adaptive(twice)
        ),
    }


def _left(attacker: AttackSpec, *before: str) -> AttackSpec:
    """The same on what these attacks leave: their candidates count for the rest."""
    about = f"{attacker.description}; on the examples that are left by: {', '.join(before)}"
    return replace(attacker, description=about, after=before)


def adaptive(conditions: Conditions) -> Ensemble:
    """Searches through the best views, on several losses."""
    attacks = (
        _through(one, conditions, first=place == 0 or (one.refusal_gradient and not conditions.random))
        for place, one in enumerate(conditions.useful)
    )
    return Ensemble(tuple(chain.from_iterable(attacks)), conditions.draws)


def _timed(conditions: Conditions) -> Attack:
    """The adaptive attack; with a budget of seconds again and again, every other time with twice the steps."""
    seconds = conditions.budget.seconds
    if seconds is None:
        return adaptive(conditions)
    quick = conditions.within(steps=BUDGETS["quick"].steps, restarts=1)
    first, again = adaptive(quick.within(targets=0)), adaptive(quick)
    return TimeLimited(seconds, Doubling(first, again), draws=conditions.draws)


def black_box(budget: Budget, norm: str) -> AttackSpec:
    """Searches that see scores alone."""
    square = (Square(budget.queries),) if norm in ("linf", "l2") else ()
    text = f"Square with {budget.queries} queries, then r" if square else "r"
    return _in_float32(
        f"{text}andom points of the ball: scores only",
        lambda _: Ensemble((*square, RandomSearch(100 if square else budget.queries))),
        access=Access.SCORES,
    )


def search_by_scores(queries: int, norm: str) -> Attack:
    """The search by scores alone that there is for a norm."""
    return Square(queries) if norm in ("linf", "l2") else RandomSearch(queries)


def _few_queries(norm: str) -> AttackSpec:
    """A short search by scores, for a comparison with the plain attack on the same images."""
    search = search_by_scores(_FEW, norm)
    return _in_float32(f"{_FEW} queries: scores only", lambda _: search, access=Access.SCORES)


def transfer(sources: Sequence[CandidateView], budget: Budget, access: Access = Access.WHITE_BOX) -> AttackSpec:
    """Searches of other models; the judge decides about their candidates on this one. ``access`` is to this one."""
    names = ", ".join(candidate.name for candidate in sources)
    search = pgd(budget.steps, margin, rel_step_size=0.1)
    attacks = tuple(_within(candidate, search) for candidate in sources if candidate.view is not None)
    return _in_float32(f"PGD on the margin of other models: {names}", lambda _: Ensemble(attacks), access=access)


def on_manifold(conditions: Conditions, sources: Sequence[CandidateView], spaces: Sequence[Latent]) -> AttackSpec:
    """Reparameterization: searches over what decoders of the model make, through the best view and other models."""
    best = conditions.useful[0]
    how, steps = estimator(best.signal, best.per_draw_passes), conditions.budget.steps // 2
    views = [best.view, *sources]

    def search(space: Latent, view: CandidateView) -> Attack:
        return _within(view, latent(space, steps, estimator=how, restarts=2, early_stop=not conditions.random))

    attacks = tuple(search(space, view) for space in spaces for view in views)
    return _in_float32(
        "a search over what a decoder inside the model makes, through the best view and through other models",
        lambda _: Ensemble(attacks, conditions.draws),
    )


def _through(one: PilotResult, conditions: Conditions, *, first: bool) -> list[Attack]:
    """Searches through a view: of margins, and of other losses through the best view.

    Of others than the best view the plain attack climbs cross entropy through the model's own gradient, so that only
    views are left to do it here. In L1 balls APGD breaks many more examples on the margin than PGD does, and than it
    does itself on DLR. So it does of a model that refuses, where PGD turns from the class to the refusal and back. Such
    a model is also searched for each of several classes: it may accept some wrong classes more easily than the nearest.
    """
    if conditions.random:
        return [_by(one, attack) for attack in _of_random(one, conditions.budget, first=first)]
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
    return [_by(one, attack) for attack in attacks]


def _of_random(one: PilotResult, budget: Budget, *, first: bool) -> list[Attack]:
    """Searches of a random model, which go on to the end: what has just crossed the boundary is back in other draws.

    The first of them are short, and the very first averages over few draws, so that the dear ones are for what is not
    broken in all draws by then.
    """
    how = estimator(one.signal, one.per_draw_passes)
    attacks: list[Attack] = [
        pgd(steps, margin, estimator(one.signal, one.per_draw_passes, most), rel_step_size=size, early_stop=False)
        for steps, size, most in _SHORT
    ]
    longer = APGD(budget.steps // 2, margin, how, restarts=max(1, budget.restarts // 2), early_stop=False)
    return [*attacks, longer] if first else attacks


def _by(one: PilotResult, attack: Attack) -> Attack:
    """``attack`` through the view of a pilot search, over the grid of that search."""
    return over_grid(one.levels, _within(one.view, attack))


def _within(candidate: CandidateView, attack: Attack) -> Attack:
    """``attack`` through a view, if any; if the view fails in it, the other attacks go on."""
    return attack if candidate.view is None else WithView(candidate.view, attack, candidate.name)
