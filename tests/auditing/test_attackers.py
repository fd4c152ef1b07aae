"""Which searches an adaptive attack is made of."""

from __future__ import annotations

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.auditing.attackers import Conditions, adaptive
from unmask.auditing.budgets import BUDGETS
from unmask.auditing.views.candidate_view import OWN_GRADIENT
from unmask.auditing.views.pilot_result import PilotResult
from unmask.losses import dlr, margin


def test_random_models_are_searched_on_the_margin_alone() -> None:
    def losses(random: bool) -> list[object]:
        results = [PilotResult(OWN_GRADIENT, 1.0, 0.0, 0.5)]
        attacks = adaptive(Conditions(results, 10, BUDGETS["quick"], "linf", random)).attacks
        return [attack.loss for attack in attacks if isinstance(attack, APGD)]

    assert losses(random=False) == [dlr]
    assert losses(random=True) == [margin]
