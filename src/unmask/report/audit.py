"""What an audit adds to a report: findings, reasons for distrust, and the script that repeats the attack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from unmask.records import AUDIT_SCHEMA
from unmask.report.conclusion import LEVEL, MARGIN
from unmask.report.read import Case, RunFolder
from unmask.report.table import Row
from unmask.statistics import Accuracy

__all__ = ["Examination", "Findings", "audit_json", "confirmed", "distrust", "obfuscated", "script"]


def confirmed(case: Case, row: Row) -> list[Mapping[str, Any]]:
    """The findings that matter: missing and wrong gradients always, others where they cost the plain attack something.

    A random or steep model that the plain attack breaks as well as any other hides nothing.
    """
    assert case.audit is not None
    return [f for f in case.audit["findings"] if f["kind"] == "shattered" or _gained(row)]


def obfuscated(case: Case, row: Row) -> bool:
    """Whether the model's own gradients mislead."""
    return bool(confirmed(case, row))


def distrust(row: Row) -> list[str]:
    """Reasons not to trust the adaptive accuracy: controls that came out wrong."""
    reasons = []
    controls, clean, adaptive = row.controls, row.clean, row.adaptive
    unbounded, still = controls.get("unbounded"), controls.get("eps 0")
    if unbounded and unbounded.low > 0.05:
        reasons.append(
            f"without a bound the attack still leaves {unbounded.value:.0%}: it fails where nothing can stand"
        )
    if still and clean and not (still.low <= clean.value <= still.high) and abs(still.value - clean.value) > 0.1:
        reasons.append(f"at eps 0 the accuracy is {still.value:.0%}, clean it is {clean.value:.0%}")
    left = {attack.name: attack.accuracy for attack in row.attacks}
    if "black-box" in left and "adaptive" in left and left["black-box"].value < left["adaptive"].value - 0.02:
        reasons.append("scores alone break more than gradients do: no view of this model is good enough yet")
    noise = controls.get("noise")
    if noise and adaptive and noise.high < adaptive.low:
        reasons.append("random points of the ball break more than the attacks")
    return reasons


def audit_json(run: RunFolder, row: Row) -> str:
    """The text of an audit's report.json."""
    case = run.cases[0]
    assert case.audit is not None
    text = {
        "schema": AUDIT_SCHEMA,
        "target": case.case,
        "data": case.data,
        "n": row.clean.n if row.clean else 0,
        "seed": run.asked.get("seed"),
        "threat": asdict(case.threat),
        "accuracy": {"clean": _figure(row.clean), "plain": _figure(row.plain), "adaptive": _figure(row.adaptive)},
        "obfuscated": obfuscated(case, row),
        "findings": confirmed(case, row),
        "attacks": [
            {
                "name": attack.name,
                "about": attack.about,
                "accuracy": attack.accuracy.value,
                "forwards": attack.forwards,
                "backwards": attack.backwards,
                "seconds": attack.seconds,
            }
            for attack in row.attacks
        ],
        "controls": {name: _figure(a) for name, a in row.controls.items()},
        "distrust": distrust(row),
        "complete": row.complete,
        "intervals": row.intervals,
        "stop_when": row.stop_when,
        "examination": case.audit,
        "script": script(case),
        "seconds": row.seconds,
        "environment": {name: run.asked.get(name) for name in ("versions", "hardware", "revision")},
    }
    return json.dumps(text, indent=1) + "\n"


def script(case: Case) -> str:
    """Python code that repeats the core of the adaptive attack with the library's own parts."""
    assert case.audit is not None
    best = next(one for one in case.audit["tried"] if not one["failure"])
    draws, threat = case.audit["draws"], case.threat
    averaged = f", unmask.EOT({draws})" if draws > 1 else ""
    return "\n".join(
        [
            "import unmask",
            "from unmask.data import load",
            "",
            f"model = ...  # {case.case}, in evaluation mode",
            f'x, y = load("{case.data}", n=200).batch()',
            f'threat = unmask.{_BALLS[threat.norm]}({threat.eps:.6g}, "{threat.unit}")',
            f"judge = unmask.Judge(model, threat{', draws=16, foreign=True' if case.random else ''})",
            "",
            "def view(model):",
            *(f"    model = unmask.{step}(model)" for step in best["code"]),
            "    return model",
            "",
            f"attack = unmask.pgd(100, unmask.margin{averaged}, size=0.1, restarts=2)",
            "print(unmask.trial(judge, model, attack, x, y, view=view).accuracy)",
        ]
    )


_BALLS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class Findings:
    """An audit's findings and checks, to be printed by rich."""

    case: Case
    row: Row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line a finding, with its remedy beneath."""
        found = confirmed(self.case, self.row)
        verdict = "Its gradients mislead." if found else "Nothing hides its gradients."
        yield Text(f"\n{verdict}", style="bold red" if found else "bold green")
        for finding in found:
            place = f"{finding['module']}: " if finding["module"] else ""
            yield Text.assemble((f"  {finding['kind']:10} ", "red"), place, (finding["where"], "dim"))
            yield Text(f"             remedy: {finding['remedy']}", style="dim")
        for reason in distrust(self.row):
            yield Text(f"  Do not trust the adaptive figure: {reason}.", style="bold yellow")


@dataclass(frozen=True)
class Examination:
    """What the page of an audit shows beside its figures."""

    findings: list[Mapping[str, Any]]
    unconfirmed: list[Mapping[str, Any]]
    distrust: list[str]
    tried: list[Mapping[str, Any]]
    parts: list[Mapping[str, Any]]
    script: str

    @classmethod
    def of(cls, case: Case, row: Row) -> Examination | None:
        """None where the case was not audited."""
        if case.audit is None:
            return None
        found = confirmed(case, row)
        rest = [finding for finding in case.audit["findings"] if finding not in found]
        return cls(found, rest, distrust(row), case.audit["tried"], case.audit["parts"], script(case))


def _gained(row: Row) -> bool:
    return row.gap is not None and row.gap.value >= MARGIN and row.gap.p < LEVEL


def _figure(a: Accuracy | None) -> dict[str, Any] | None:
    return None if a is None else asdict(a)
