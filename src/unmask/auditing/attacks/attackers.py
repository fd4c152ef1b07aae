"""The attacks of an audit: plain, adaptive, latent, from other models, by scores alone; and its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from unmask.attacks.aliases import fgsm, latent, pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.random_search import RandomSearch
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.problem import Attack
from unmask.auditing.attacks.adaptive import adaptive, by_pilot, through_view, timed
from unmask.auditing.attacks.conditions import Conditions
from unmask.auditing.budgets import Budget
from unmask.auditing.views.candidate_view import CandidateView
from unmask.auditing.views.view_selection import estimator
from unmask.cases import AttackSpec
from unmask.gradients.spaces import Latent
from unmask.kinds import Access
from unmask.losses import margin

__all__ = ["attackers", "black_box", "controls", "search_by_scores", "transfer"]

_FEW = 50
"""Queries of the control that compares scores with the plain gradient."""

_RARER = 4
"""By which the queries of a random model are fewer: each is judged in many draws, and says little about the next."""

_in_float32 = partial(AttackSpec, low_precision=False)
"""Models of other people need not bear a narrower type."""

_noise = _in_float32("25 random points of the ball", lambda _: RandomSearch(25))
"""Of a random model, since each point is judged in many draws."""


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
    searches = _in_float32(f"{how}, through: {names}", lambda _: timed(conditions))
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
    single = by_pilot(best, fgsm(margin, estimator(best.signal, best.per_draw_passes)))
    once = replace(conditions.within(targets=0, views=1), refusal_views=0)
    twice = once.within(steps=2 * conditions.budget.steps)
    return {
        "plain one step": _in_float32(
            "one step of the plain attack", lambda _: RandomSearch(1) if conditions.refused else fgsm()
        ),
        "one step": _in_float32("one step of the adaptive attack", lambda _: single),
        **({"noise": _noise} if conditions.random else {}),
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
    attacks = tuple(through_view(candidate, search) for candidate in sources if candidate.view is not None)
    return _in_float32(f"PGD on the margin of other models: {names}", lambda _: Ensemble(attacks), access=access)


def on_manifold(conditions: Conditions, sources: Sequence[CandidateView], spaces: Sequence[Latent]) -> AttackSpec:
    """Reparameterization: searches over what decoders of the model make, through the best view and other models."""
    best = conditions.useful[0]
    how, steps = estimator(best.signal, best.per_draw_passes), conditions.budget.steps // 2
    views = [best.view, *sources]

    def search(space: Latent, view: CandidateView) -> Attack:
        return through_view(view, latent(space, steps, estimator=how, restarts=2, early_stop=not conditions.random))

    attacks = tuple(search(space, view) for space in spaces for view in views)
    return _in_float32(
        "a search over what a decoder inside the model makes, through the best view and through other models",
        lambda _: Ensemble(attacks, conditions.draws),
    )
