"""Which searches an adaptive attack is made of."""

from __future__ import annotations

from dataclasses import replace

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.auditing.attacks.adaptive import adaptive
from unmask.auditing.attacks.conditions import Conditions
from unmask.auditing.budgets import BUDGETS
from unmask.auditing.views.candidate_view import OWN_GRADIENT, plain
from unmask.auditing.views.pilot_result import PilotResult
from unmask.gradients.eot import EOT
from unmask.gradients.straight_through import narrow_straight_through, straight_through
from unmask.losses import dlr, margin, targeted_margin


def test_random_models_are_searched_on_the_margin_alone() -> None:
    def losses(random: bool) -> list[object]:
        results = [PilotResult(OWN_GRADIENT, 1.0, 0.0, 0.5)]
        attacks = adaptive(Conditions(results, 10, BUDGETS["quick"], "linf", random)).attacks
        return [attack.loss for attack in attacks if isinstance(attack, APGD)]

    assert losses(random=False) == [dlr]
    assert losses(random=True) == [margin]


def test_a_model_that_refuses_is_searched_through_views_of_its_refusals_too() -> None:
    blind = PilotResult(OWN_GRADIENT, 0.5, 0.0, 1.0)
    twice = plain(narrow_straight_through).then(plain(straight_through))
    steered = [PilotResult(view, 0.6, 0.0, 1.0, refusal_gradient=True) for view in (twice, plain(straight_through))]
    conditions = Conditions([blind, *steered], 10, BUDGETS["quick"], "linf", random=False)
    assert conditions.useful == [blind, *reversed(steered)], "of two that are as good, the simpler one comes first"
    assert Conditions([blind], 10, BUDGETS["quick"], "linf", random=False).useful == [blind]
    inside = [getattr(attack, "attack", attack) for attack in adaptive(conditions).attacks]
    assert [one.loss for one in inside if isinstance(one, APGD)].count(margin) == 3, "one through each view"
    assert [one.targets for one in inside if isinstance(one, APGD) and one.loss is targeted_margin] == [9, 9, 9]


def test_a_random_model_that_refuses_is_searched_for_each_class_over_several_draws() -> None:
    steered = PilotResult(plain(straight_through), 0.6, 0.0, 0.9, refusal_gradient=True)
    conditions = Conditions([steered], 10, BUDGETS["quick"], "linf", random=True)
    inside = [getattr(attack, "attack", attack) for attack in adaptive(conditions).attacks]
    (aimed,) = [one for one in inside if isinstance(one, APGD) and one.loss is targeted_margin]
    assert (aimed.targets, aimed.estimator) == (9, EOT(4))
    silent = replace(conditions, results=[replace(steered, refusal_gradient=False)])
    inside = [getattr(attack, "attack", attack) for attack in adaptive(silent).attacks]
    assert [one.loss for one in inside if isinstance(one, APGD)] == [margin]
