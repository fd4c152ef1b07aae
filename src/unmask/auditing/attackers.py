"""The attacks of an audit: plain, through the views that proved useful, from other models, by scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
from unmask.auditing.views.candidate_views import OWN_GRADIENT, CandidateView
from unmask.auditing.views.view_selection import PilotResult, estimator
from unmask.cases import AttackSpec
from unmask.gradients.bpda import View
from unmask.gradients.spaces import Latent
from unmask.kinds import Access
from unmask.losses import cross_entropy, dlr, margin, targeted_dlr
from unmask.types import Estimator

__all__ = ["NOISE", "adaptive", "attackers", "black_box", "controls", "transfer", "useful"]

NOISE = 0.25
"""Of what attacks follow, for each part that is common to all draws."""

_DRAWS = 16
"""Over which candidates for a random model are compared."""

_FIRST = ((10, 0.25), (30, 0.1))
"""Steps, and their size, of the first searches of a random model."""


def attackers(
    results: Sequence[PilotResult],
    sources: Sequence[CandidateView],
    spaces: Sequence[Latent],
    classes: int,
    budget: Budget,
    *,
    norm: str,
    random: bool,
) -> dict[str, AttackSpec]:
    """By name: "plain", "adaptive" (an ensemble over views), "latent" (given spaces), "transfer", "black-box".

    Args:
        results: of the pilot, best first.
        sources: what is searched for examples that transfer.
        spaces: of decoders inside the model.
        classes: of the model.
        norm: of the ball.
        random: whether verdicts need several draws.
    """
    names = ", ".join(one.name for one in useful(results, budget))
    why, further = _refused(results), " and the margin" if norm == "l1" else " and DLR"
    return {
        "plain": AttackSpec(
            f"a random point, since the model has no gradient of its own: {why}"
            if why
            else "APGD on cross entropy, through the model's own gradient",
            lambda _: RandomSearch(1) if why else APGD(budget.steps),
            plain=True,
            low_precision=False,
        ),
        "adaptive": AttackSpec(
            f"PGD on the margin, APGD on cross entropy{'' if random else further}, through: {names}",
            lambda _: _timed(results, classes, budget, norm, random=random),
            low_precision=False,
        ),
        **({"latent": on_manifold(results, sources, spaces, budget, random=random)} if spaces else {}),
        "transfer": transfer(sources, budget),
        "black-box": black_box(budget, norm),
    }


def controls(
    results: Sequence[PilotResult], classes: int, budget: Budget, *, norm: str, random: bool
) -> dict[str, AttackSpec]:
    """What shows whether those attacks did their work: one step of each; the best view alone, and twice as long."""
    best = useful(results, budget)[0]
    single = _by(best, fgsm(margin, estimator(best.signal, best.per_draw_passes, NOISE)))
    once = replace(budget, targets=0, views=1)
    twice = replace(once, steps=2 * budget.steps)
    return {
        "plain one step": AttackSpec(
            "one step of the plain attack",
            lambda _: RandomSearch(1) if _refused(results) else fgsm(),
            low_precision=False,
        ),
        "one step": AttackSpec("one step of the adaptive attack", lambda _: single, low_precision=False),
        "best view": AttackSpec(
            "the adaptive attack through the best view alone",
            lambda _: adaptive(results, classes, once, norm, random=random),
            low_precision=False,
        ),
        "doubled steps": AttackSpec(
            "the adaptive attack with twice the steps, through the best view",
            lambda _: adaptive(results, classes, twice, norm, random=random),
            low_precision=False,
        ),
    }


def adaptive(results: Sequence[PilotResult], classes: int, budget: Budget, norm: str, *, random: bool) -> Ensemble:
    """Searches through the best views, on several losses."""
    chosen = enumerate(useful(results, budget))
    attacks = tuple(attack for place, one in chosen for attack in _through(one, place, classes, budget, norm, random))
    return Ensemble(attacks, _DRAWS if random else 1)


def _timed(results: Sequence[PilotResult], classes: int, budget: Budget, norm: str, *, random: bool) -> Attack:
    """The adaptive attack; with a budget of seconds again and again, every other time with twice the steps."""
    if budget.seconds is None:
        return adaptive(results, classes, budget, norm, random=random)
    quick = replace(budget, steps=BUDGETS["quick"].steps, restarts=1)
    first, again = (
        adaptive(results, classes, effort, norm, random=random) for effort in (replace(quick, targets=0), quick)
    )
    return TimeLimited(budget.seconds, Doubling(first, again), draws=_DRAWS if random else 1)


def black_box(budget: Budget, norm: str) -> AttackSpec:
    """Searches that see scores alone."""
    square = (Square(budget.queries),) if norm in ("linf", "l2") else ()
    text = f"Square with {budget.queries} queries, then r" if square else "r"
    return AttackSpec(
        f"{text}andom points of the ball: scores only",
        lambda _: Ensemble((*square, RandomSearch(100 if square else budget.queries))),
        access=Access.SCORES,
        low_precision=False,
    )


def transfer(sources: Sequence[CandidateView], budget: Budget, access: Access = Access.WHITE_BOX) -> AttackSpec:
    """Searches of other models; the judge decides about their candidates on this one. ``access`` is to this one."""
    names = ", ".join(candidate.name for candidate in sources)
    search = pgd(budget.steps, margin, rel_step_size=0.1)
    return AttackSpec(
        f"PGD on the margin of other models: {names}",
        lambda _: Ensemble(
            tuple(WithView(candidate.view, search) for candidate in sources if candidate.view is not None)
        ),
        access=access,
        low_precision=False,
    )


def on_manifold(
    results: Sequence[PilotResult],
    sources: Sequence[CandidateView],
    spaces: Sequence[Latent],
    budget: Budget,
    *,
    random: bool,
) -> AttackSpec:
    """Reparameterization: searches over what decoders of the model make, through the best view and other models."""
    best = useful(results, budget)[0]
    how, steps = estimator(best.signal, best.per_draw_passes), budget.steps // 2
    views = [best.view.view, *(candidate.view for candidate in sources)]

    def search(space: Latent, view: View | None) -> Attack:
        attack = latent(space, steps, estimator=how, restarts=2, early_stop=not random)
        return attack if view is None else WithView(view, attack)

    return AttackSpec(
        "a search over what a decoder inside the model makes, through the best view and through other models",
        lambda _: Ensemble(tuple(search(space, view) for space in spaces for view in views), _DRAWS if random else 1),
        low_precision=False,
    )


def _refused(results: Sequence[PilotResult]) -> str:
    """Why torch cannot differentiate the model as it is, where it cannot."""
    return next((one.error for one in results if one.view == OWN_GRADIENT and not one.levels), "")


def useful(results: Sequence[PilotResult], budget: Budget) -> list[PilotResult]:
    """Those whose views the adaptive attack takes, best first."""
    return [one for one in results if not one.error][: budget.views]


def _through(one: PilotResult, place: int, classes: int, budget: Budget, norm: str, random: bool) -> list[Attack]:
    """Searches of a random model go on to the end: what has just crossed the boundary is back in other draws.

    The first of them are short, so that long ones are for what is not broken in all draws by then. DLR divides by
    a spread that differs from draw to draw; the mean over draws of cross entropy says more. Of others the plain
    attack climbs cross entropy through the model's own gradient, so that only views are left to do it here. In L1
    balls APGD breaks many more examples on the margin than PGD does, and than it does itself on DLR.
    """
    how: Estimator = estimator(one.signal, one.per_draw_passes, NOISE)
    stop = not random
    first = [one for one in _FIRST if one[0] < budget.steps] if random and place == 0 else []
    searches = [*first, *[(budget.steps, 0.1)] * budget.restarts]
    attacks: list[Attack] = [pgd(steps, margin, how, rel_step_size=size, early_stop=stop) for steps, size in searches]
    if place == 0:
        if random or one.view.view is not None:
            attacks.append(APGD(budget.steps, cross_entropy, how, early_stop=stop))
        if norm == "l1" and not random:
            attacks.append(APGD(budget.steps, margin, how, early_stop=stop))
        elif classes >= 3 and not random:
            attacks.append(APGD(budget.steps, dlr, how, early_stop=stop))
        if budget.targets and classes >= 4:
            aims = min(budget.targets, classes - 1)
            attacks.append(APGD(budget.steps // 2, targeted_dlr, how, targets=aims, early_stop=stop))
    return [_by(one, attack) for attack in attacks]


def _by(one: PilotResult, attack: Attack) -> Attack:
    """``attack`` through the view of a pilot search, over the grid of that search."""
    return over_grid(one.levels, attack if one.view.view is None else WithView(one.view.view, attack))
