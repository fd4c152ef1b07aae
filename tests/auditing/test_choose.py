"""Which view an audit prefers, of several that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from unmask.auditing import plan
from unmask.auditing.candidates import PLAIN, Way
from unmask.auditing.choose import Tried, best_first
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.targets import Target
from unmask.threats import Linf

DEAR = Way(("dear",), lambda model: model)
NET = find_case("plain-digits").load()
DATA = load("digits", n=16)


def test_views_are_sorted_by_what_they_leave_then_by_the_larger_margin_that_they_reach() -> None:
    failed = Tried(PLAIN, 1.0, -float("inf"), 0.0, failure="no gradient")
    far, near, weak = (Tried(PLAIN, left, loss, 1.0) for left, loss in ((0.1, 2.0), (0.1, -2.0), (0.2, 3.0)))
    standing = Tried(PLAIN, 1.0, -5.0, 1.0)
    assert best_first([failed, weak, near, standing, far]) == [far, near, weak, standing, failed]


@pytest.mark.parametrize(
    ("cheap", "dear", "order"),
    [
        (0.05, 0.0, ["own gradient"]),  # little enough is left: nothing dear is tried
        (0.06, 0.0, ["dear", "own gradient"]),
        (0.3, 0.24, ["dear", "own gradient"]),
        (0.3, 0.26, ["own gradient", "dear"]),  # tried, but not worth what it costs
    ],
)
def test_a_dear_view_is_tried_where_over_five_percent_are_left_and_preferred_if_it_leaves_five_percent_less(
    monkeypatch: pytest.MonkeyPatch, cheap: float, dear: float, order: list[str]
) -> None:
    def tried(model: object, judge: object, ways: Sequence[Way], *_: Any) -> list[Tried]:
        return [Tried(way, dear if way == DEAR else cheap, 0.0, 1.0) for way in ways]

    monkeypatch.setattr(plan, "try_out", tried)
    monkeypatch.setattr(plan, "dearer", lambda evidence: [DEAR])
    planned, _ = plan.plan_audit("net", Target(NET), DATA, Linf(0.1), 16, 0, "quick")
    assert [one["view"] for one in planned.about["audit"]["tried"]] == order
