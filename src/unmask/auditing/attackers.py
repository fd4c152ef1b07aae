"""The attacks of an audit: the plain one, those through the views that proved useful, and those by scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.attacks.apgd import APGD
from unmask.attacks.ensemble import Ensemble
from unmask.attacks.problem import Attack
from unmask.attacks.random_search import RandomSearch
from unmask.attacks.settings import pgd
from unmask.attacks.square import Square
from unmask.attacks.through import Through
from unmask.auditing.choose import Tried, estimator
from unmask.cases import Attacker
from unmask.losses import beyond, dlr, margin, targeted_dlr
from unmask.types import Estimator

__all__ = ["BUDGETS", "Budget", "attackers"]

_SURE = 0.25
"""The judge is asked about a random model once its margin is this large, in standard deviations of its logits."""


@dataclass(frozen=True)
class Budget:
    """Gradients, targets and queries that an example still standing may cost."""

    steps: int
    restarts: int
    targets: int
    queries: int
    views: int  # that are used, the best first


BUDGETS = {
    "quick": Budget(steps=30, restarts=1, targets=0, queries=200, views=1),
    "standard": Budget(steps=100, restarts=2, targets=4, queries=1000, views=2),
    "thorough": Budget(steps=200, restarts=4, targets=9, queries=5000, views=3),
}


def attackers(tried: Sequence[Tried], classes: int, budget: Budget, *, random: bool) -> dict[str, Attacker]:
    """By name: "plain", "adaptive" (an ensemble over views), "black-box".

    Args:
        tried: views, best first.
        classes: of the model.
        random: whether verdicts need several draws.
    """
    useful = [one for one in tried if not one.failure][: budget.views]
    members = [attack for place, one in enumerate(useful) for attack in _through(one, place, classes, budget, random)]
    names = ", ".join(one.way.name for one in useful)
    return {
        "plain": Attacker(
            "APGD on cross entropy, through the model's own gradient",
            lambda _: APGD(budget.steps),
            plain=True,
            low_precision=False,
        ),
        "adaptive": Attacker(
            f"PGD on the margin and APGD on DLR, through: {names}",
            lambda _: Ensemble(tuple(members)),
            low_precision=False,
        ),
        "black-box": Attacker(
            f"Square with {budget.queries} queries, then random points of the ball: scores only",
            lambda _: Ensemble((Square(budget.queries), RandomSearch(100))),
            low_precision=False,
        ),
    }


def _through(one: Tried, place: int, classes: int, budget: Budget, random: bool) -> list[Attack]:
    how: Estimator = estimator(one.signal)
    loss = beyond(margin, _SURE * one.spread) if random else margin
    attacks: list[Attack] = [pgd(budget.steps, loss, how, size=0.1, restarts=budget.restarts)]
    if place == 0:
        if classes >= 3:
            attacks.append(APGD(budget.steps, dlr, how))
        if budget.targets and classes >= 4:
            attacks.append(APGD(budget.steps // 2, targeted_dlr, how, targets=min(budget.targets, classes - 1)))
    view = one.way.view
    return attacks if view is None else [Through(view, attack) for attack in attacks]
