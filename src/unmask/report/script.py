"""Python code that repeats the attack of an audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unmask.report.run_folder import CaseInfo

__all__ = ["script"]


def script(case: CaseInfo) -> str:
    """Python code that repeats the core of the adaptive attack with the library's own parts."""
    assert case.audit is not None
    if not case.audit["candidate_views"]:
        return _script_by_scores(case)
    best = next(one for one in case.audit["candidate_views"] if not one["error"])
    draws, threat = case.audit["draws"], case.threat
    passes = ", batch=1" if case.audit.get("per_draw_passes") else ""
    averaged = f", unmask.EOT({draws}{passes})" if draws > 1 else ""
    return "\n".join(
        [
            "import unmask",
            "from unmask.data import load",
            "",
            f"model = ...  # {_bare(case.case)}, in evaluation mode",
            f"x, y = load({json.dumps(case.data)}, n=200).batch()",
            f'threat = unmask.{_BALLS[threat.norm]}({threat.eps:.6g}, "{threat.unit}")',
            f"judge = unmask.Judge(model, threat{', draws=16, uses_torch_random=True' if case.random else ''})",
            "",
            "def view(model):",
            *(f"    model = unmask.{step}(model)" for step in best["code"]),
            "    return model",
            "",
            "module = unmask.attackable(model, view{})  # for AutoAttack, Foolbox, ART".format(
                f", samples={draws}" if draws > 1 else ""
            ),
            f"attack = {_on_grid(best, f'unmask.pgd(100, unmask.margin{averaged}, rel_step_size=0.1, restarts=2)')}",
            "print(unmask.run_attack(judge, model, attack, x, y, view=view).accuracy)",
        ]
    )


def _on_grid(best: Mapping[str, Any], attack: str) -> str:
    return f"unmask.Snapped({best['levels']}, {attack})" if best.get("levels") else attack


def _script_by_scores(case: CaseInfo) -> str:
    ball = f'unmask.{_BALLS[case.threat.norm]}({case.threat.eps:.6g}, "{case.threat.unit}")'
    return "\n".join(
        [
            "import unmask",
            "from unmask.data import load",
            "",
            f"model = unmask.BlackBoxModel(...)  # {_bare(case.case)}; or unmask.http_model(url)",
            f"x, y = load({json.dumps(case.data)}, n=200).batch()",
            f"judge = unmask.Judge(model, {ball})",
            "",
            "print(unmask.run_attack(judge, model, unmask.Square(1000), x, y).accuracy)",
        ]
    )


def _bare(name: str) -> str:
    """Without what would end a comment."""
    return " ".join(name.split())


_BALLS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
