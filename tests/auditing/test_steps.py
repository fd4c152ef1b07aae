"""An audit in four steps, told in the same words by the terminal and by the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.auditing.plan import plan_audit
from unmask.auditing.request import STEPS, AuditRequest
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.models.targets import Target
from unmask.models.black_box_models import BlackBoxModel
from unmask.progress import Level, on_progress
from unmask.threats import Linf

NET = find_case("plain-digits").load()
DATA = load("digits", n=16)


def told(target: Target) -> list[str]:
    seen: list[tuple[Level, ...]] = []
    with on_progress(seen.append):
        plan_audit(AuditRequest("net", target, DATA, Linf(0.1), 16, budget="quick"))
    outer = dict.fromkeys(levels[0] for levels in seen)
    assert {level.total for level in outer} == {len(STEPS)}, "loops run within the steps"
    assert [STEPS[level.done] for level in outer] == [level.what.removesuffix(", audit step") for level in outer]
    return [STEPS[level.done] for level in outer]


def test_who_watches_an_audit_is_told_of_its_steps_in_their_order() -> None:
    assert told(Target(NET)) == [*STEPS]


def test_of_answers_alone_no_gradient_is_probed_and_no_view_tried() -> None:
    model = BlackBoxModel(lambda x: x.reshape(len(x), -1)[:, 20:30])
    assert told(Target(model)) == [STEPS[0], STEPS[-1]]


def test_the_documentation_names_the_steps() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    for number, what in enumerate(STEPS, 1):
        assert f"| {number}. {what} |" in page
        assert f"**{number}. {what.capitalize()}.**" in page


def test_an_unknown_budget_is_refused_before_the_model_is_asked() -> None:
    with pytest.raises(ValueError, match="no budget 'endless'"):
        AuditRequest("net", Target(NET), DATA, Linf(0.1), 16, budget="endless")
