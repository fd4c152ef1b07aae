"""What an audit adds to a report: findings, reasons for distrust, and the script that repeats the attack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from unmask.records import AUDIT_SCHEMA
from unmask.report.conclusion import MARGIN, confirmed
from unmask.report.indicators import Indicator, indicators
from unmask.report.read import Case, RunFolder
from unmask.report.table import Row
from unmask.statistics import Accuracy

__all__ = ["Distrust", "Examination", "Findings", "audit_json", "distrust", "obfuscated", "script"]


def obfuscated(case: Case, row: Row) -> bool:
    """Whether the model's own gradients mislead."""
    return bool(_confirmed(case, row))


def _confirmed(case: Case, row: Row) -> list[Mapping[str, Any]]:
    assert case.audit is not None
    return confirmed(case.audit["findings"], row.clean, row.gap)


_SPOILED = {
    "batch": "an image's answer depends on the others of its batch: the figures hold for the batches of this audit",
    "unrepeatable": "the model's answers cannot be repeated, so that what an attack has seen need not come again",
    "range": "the model was made for images of another range than [0, 1]",
}
"""Mistakes in how a model was made ready after which no figure means what it says."""


def distrust(run: RunFolder, case: Case, row: Row) -> list[str]:
    """Reasons not to trust the adaptive accuracy: a model that was not made ready, controls that came out wrong."""
    assert case.audit is not None
    reasons = [_SPOILED[finding["kind"]] for finding in case.audit.get("lint", []) if finding["kind"] in _SPOILED]
    still, clean = row.controls.get("eps 0"), [e.robust or e.refused for r in run.of(case, "clean") for e in r.examples]
    if still and clean:
        value = sum(clean) / len(clean)  # with refusals, which an attack at eps 0 counts for the defense
        if not (still.low <= value <= still.high) and abs(still.value - value) > 0.1:
            reasons.append(f"at eps 0 the accuracy is {still.value:.0%}, clean it is {value:.0%}")
    if row.adaptive is None or row.adaptive.value <= MARGIN:
        return reasons  # hardly anything is left that could be too much
    return [*reasons, *(one.why for one in indicators(run, case) if one.failed and one.of == "adaptive")]


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
        "refused": {role: _refused(run, case, role) for role in ("clean", "plain", "adaptive")},
        "obfuscated": None if case.audit.get("unexamined") else obfuscated(case, row),
        "unexamined": case.audit.get("unexamined", ""),
        "findings": _confirmed(case, row),
        "lint": case.audit.get("lint", []),
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
        "trusted": not distrust(run, case, row),
        "distrust": distrust(run, case, row),
        "indicators": [asdict(one) for one in indicators(run, case)],
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
    if not case.audit["tried"]:
        return _script_by_scores(case)
    best = next(one for one in case.audit["tried"] if not one["failure"])
    draws, threat = case.audit["draws"], case.threat
    passes = ", batch=1" if case.audit.get("apart") else ""
    averaged = f", unmask.EOT({draws}{passes})" if draws > 1 else ""
    return "\n".join(
        [
            "import unmask",
            "from unmask.data import load",
            "",
            f"model = ...  # {_bare(case.case)}, in evaluation mode",
            f"x, y = load({json.dumps(case.data)}, n=200).batch()",
            f'threat = unmask.{_BALLS[threat.norm]}({threat.eps:.6g}, "{threat.unit}")',
            f"judge = unmask.Judge(model, threat{', draws=16, foreign=True' if case.random else ''})",
            "",
            "def view(model):",
            *(f"    model = unmask.{step}(model)" for step in best["code"]),
            "    return model",
            "",
            "module = unmask.attackable(model, view{})  # for AutoAttack, Foolbox, ART".format(
                f", samples={draws}" if draws > 1 else ""
            ),
            f"attack = unmask.pgd(100, unmask.margin{averaged}, size=0.1, restarts=2)",
            "print(unmask.trial(judge, model, attack, x, y, view=view).accuracy)",
        ]
    )


def _script_by_scores(case: Case) -> str:
    ball = f'unmask.{_BALLS[case.threat.norm]}({case.threat.eps:.6g}, "{case.threat.unit}")'
    return "\n".join(
        [
            "import unmask",
            "from unmask.data import load",
            "",
            f"model = unmask.ScoresOnly(...)  # {_bare(case.case)}; or unmask.remote(url)",
            f"x, y = load({json.dumps(case.data)}, n=200).batch()",
            f"judge = unmask.Judge(model, {ball})",
            "",
            "print(unmask.trial(judge, model, unmask.Square(1000), x, y).accuracy)",
        ]
    )


def _bare(name: str) -> str:
    """Without what would end a comment."""
    return " ".join(name.split())


_BALLS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class Distrust:
    """What stands above figures that failed their controls, to be printed by rich."""

    run: RunFolder
    row: Row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Nothing where there is no reason for distrust."""
        reasons = distrust(self.run, self.run.cases[0], self.row)
        if reasons:
            yield Text("Do not trust this number:", style="bold yellow")
        for reason in reasons:
            yield Text(f"  {reason}", style="yellow")


@dataclass(frozen=True)
class Findings:
    """An audit's findings and checks, to be printed by rich."""

    run: RunFolder
    row: Row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line a finding, with its remedy beneath."""
        case = self.run.cases[0]
        assert case.audit is not None
        found = _confirmed(case, self.row)
        verdict = "Its gradients mislead." if found else "Nothing hides its gradients."
        if unseen := case.audit.get("unexamined"):
            yield Text(f"\nNot examined: {unseen}.", style="bold yellow")
        else:
            yield Text(f"\n{verdict}", style="bold red" if found else "bold green")
        for finding in found:
            yield _line(finding, "red")
            yield Text(f"             remedy: {finding['remedy']}", style="dim")
        for finding in case.audit.get("lint", []):
            yield _line(finding, "yellow")
            yield Text(f"             remedy: {finding['remedy']}", style="dim")


@dataclass(frozen=True)
class Examination:
    """What the page of an audit shows beside its figures."""

    findings: list[Mapping[str, Any]]
    lint: list[Mapping[str, Any]]
    unconfirmed: list[Mapping[str, Any]]
    distrust: list[str]
    indicators: list[Indicator]
    tried: list[Mapping[str, Any]]
    parts: list[Mapping[str, Any]]
    script: str
    unexamined: str

    @classmethod
    def of(cls, run: RunFolder, case: Case, row: Row) -> Examination | None:
        """None where the case was not audited."""
        if case.audit is None:
            return None
        found = _confirmed(case, row)
        rest = [finding for finding in case.audit["findings"] if finding not in found]
        return cls(
            findings=found,
            lint=case.audit.get("lint", []),
            unconfirmed=rest,
            distrust=distrust(run, case, row),
            indicators=indicators(run, case),
            tried=case.audit["tried"],
            parts=case.audit["parts"],
            script=script(case),
            unexamined=case.audit.get("unexamined", ""),
        )


def _refused(run: RunFolder, case: Case, role: str) -> float | None:
    """Share of the examples that a detector refuses."""
    examples = [example for record in run.of(case, role) for example in record.examples]
    return sum(example.refused for example in examples) / len(examples) if examples else None


def _line(finding: Mapping[str, Any], colour: str) -> Text:
    place = f"{finding['module']}: " if finding["module"] else ""
    return Text.assemble((f"  {finding['kind']:10} ", colour), place, (finding["where"], "dim"))


def _figure(a: Accuracy | None) -> dict[str, Any] | None:
    return None if a is None else asdict(a)
