from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import pytest

import unmask
from unmask.records import ThreatSpec
from unmask.report.script import script

AUDIT = {"candidate_views": [{"error": "", "code": ["straight_through"], "levels": 0}], "draws": 4}


@pytest.mark.parametrize("random", [False, True])
def test_the_judge_of_the_script_takes_its_arguments(random: bool) -> None:
    case: Any = SimpleNamespace(
        audit=AUDIT, case="m.py:f", data="digits", threat=ThreatSpec("linf", 0.1), random=random
    )
    calls = [node for node in ast.walk(ast.parse(script(case))) if isinstance(node, ast.Call)]
    (judge,) = (call for call in calls if ast.unparse(call.func) == "unmask.Judge")
    given: dict[str, Any] = {str(word.arg): ast.literal_eval(word.value) for word in judge.keywords}
    assert given == ({"draws": 16, "uses_torch_random": True} if random else {})
    unmask.Judge(lambda x: x, unmask.Linf(0.1), **given)
