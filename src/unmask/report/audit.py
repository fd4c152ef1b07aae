"""What an audit adds to a report: findings about gradients, model setup, candidate views."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from unmask.kinds import MAIN_ROLES, Role
from unmask.records import AUDIT_SCHEMA
from unmask.report.run_folder import CaseInfo, RunFolder
from unmask.report.script import script
from unmask.report.table import Row
from unmask.report.verdict.finding_sentences import WinningView, winning_view
from unmask.report.verdict.indicators import Indicator, indicators
from unmask.report.verdict.masking import NOT_CLASSIFIED, Masking, named
from unmask.statistics import Accuracy

__all__ = ["AuditSection", "Findings", "audit_json", "heading", "not_diagnosed"]


def not_diagnosed(case: CaseInfo, row: Row) -> str:
    """Why an audit says nothing about gradients; empty where it does."""
    assert case.audit is not None
    reason: str = case.audit.get("not_diagnosed_reason", "")
    return reason or ("" if row.classified else NOT_CLASSIFIED)


def _named(case: CaseInfo, row: Row) -> list[Mapping[str, Any]]:
    return [] if not_diagnosed(case, row) else named(case.findings, row.clean, row.paired_test)


def _in(finding: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> bool:
    return any((one["kind"], one["where"]) == (finding["kind"], finding["where"]) for one in found)


def audit_json(run: RunFolder, row: Row) -> str:
    """The text of an audit's report.json."""
    case = run.cases[0]
    assert case.audit is not None
    text = {
        "schema": AUDIT_SCHEMA,
        "target": case.case,
        "data": case.data,
        "n": row.clean.n if row.clean else 0,
        "seed": run.config.get("seed"),
        "threat": asdict(case.threat),
        "accuracy": {"clean": _figure(row.clean), "plain": _figure(row.plain), "adaptive": _figure(row.adaptive)},
        "refused": {role: _refused(run, case, role) for role in MAIN_ROLES},
        "masking": row.masking,
        "reason": row.reason,
        "warnings": list(row.warnings),
        "reliable": row.reliable,
        "upper_bound": row.upper_bound,
        "not_diagnosed_reason": not_diagnosed(case, row),
        "findings": _named(case, row),
        "lint": case.setup_findings,
        "attacks": [
            {
                "name": attack.name,
                "description": attack.description,
                "accuracy": attack.accuracy.value,
                "other_threats": [asdict(threat) for threat in attack.other_threats],
                "forwards": attack.forwards,
                "backwards": attack.backwards,
                "seconds": attack.seconds,
            }
            for attack in row.attacks
        ],
        "controls": {name: _figure(a) for name, a in row.controls.items()},
        "indicators": [asdict(one) for one in indicators(run, case)],
        "complete": row.complete,
        "intervals": row.intervals,
        "stop_when": row.stop_when,
        "diagnosis": case.audit if row.classified else {**case.audit, "findings": []},
        "script": script(run, case),
        "seconds": row.seconds,
        "environment": {name: run.config.get(name) for name in ("versions", "hardware", "revision")},
        "planning_seconds": run.planning_seconds,
    }
    return json.dumps(text, indent=1) + "\n"


@dataclass(frozen=True)
class AuditSection:
    """What the page of an audit shows beside its figures; ``not_diagnosed_reason`` is why it shows no gradients."""

    heading: str
    findings: list[Mapping[str, Any]]
    unconfirmed: list[Mapping[str, Any]]
    seen: list[Indicator]  # the indicators of attack failure that were seen
    not_seen: list[str]  # names of the others, with their attacks
    view: WinningView | None
    candidate_views: list[Mapping[str, Any]]
    parts: list[Mapping[str, Any]]
    planning_seconds: Mapping[str, float]  # by step
    script: str
    not_diagnosed_reason: str

    @classmethod
    def of(cls, run: RunFolder, case: CaseInfo, row: Row) -> AuditSection | None:
        """None where the case was not audited."""
        if case.audit is None:
            return None
        found, classified = _named(case, row), row.classified
        reason = not_diagnosed(case, row)
        tests = indicators(run, case) if classified else []
        not_seen: dict[str, list[str]] = {}
        for one in tests:
            if not one.failed:
                not_seen.setdefault(one.name, []).append(one.of)
        views = case.audit["candidate_views"] if classified else []
        return cls(
            heading=heading(case, row),
            findings=found,
            unconfirmed=[] if reason else [finding for finding in case.findings if not _in(finding, found)],
            seen=[one for one in tests if one.failed],
            not_seen=[f"{name} ({', '.join(attacks)})" for name, attacks in not_seen.items()],
            view=winning_view(views),
            candidate_views=views,
            parts=case.audit["parts"] if classified else [],
            planning_seconds=run.planning_seconds,
            script=script(run, case),
            not_diagnosed_reason=reason,
        )


def heading(case: CaseInfo, row: Row) -> str:
    """The heading of the findings; it says no more than the verdict does."""
    if not_diagnosed(case, row):
        return "Gradients not diagnosed"
    if row.masking in (Masking.MASKED, Masking.PARTLY_MASKED):
        cause = "" if _named(case, row) else ": the plain attack had no gradient on many of the images"
        return f"Gradient masking found{cause}"
    if _named(case, row):
        return "Gradients are missing or wrong in places"
    return "No gradient masking found" if row.masking is Masking.NOT_FOUND else "No faulty gradient found"


@dataclass(frozen=True)
class Findings:
    """What was found of a model's gradients and of its setup, to be printed by rich."""

    case: CaseInfo
    row: Row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line a finding, with its remedy beneath."""
        if self.case.audit is not None:
            yield from self._gradients()
        setup = self.case.setup_findings
        if setup:
            yield Text("\nModel setup warnings.", style="bold yellow")
        for finding in setup:
            yield from _finding_lines(finding, "yellow")

    def _gradients(self) -> Iterator[Text]:
        found = _named(self.case, self.row)
        masked = self.row.masking is Masking.MASKED
        if unseen := not_diagnosed(self.case, self.row):
            yield Text(f"\nGradients are not diagnosed: {unseen}.", style="bold yellow")
        else:
            style = "bold red" if masked else "bold yellow" if found else "bold"
            yield Text(f"\n{heading(self.case, self.row)}.", style=style)
        for finding in found:
            yield from _finding_lines(finding, "red" if masked else "yellow")


def _refused(run: RunFolder, case: CaseInfo, role: Role) -> float | None:
    """Share of the examples that a detector refuses."""
    examples = [example for record in run.of(case, role) for example in record.examples]
    return sum(example.refused for example in examples) / len(examples) if examples else None


def _finding_lines(finding: Mapping[str, Any], colour: str) -> Iterator[Text]:
    part = f"{finding['module']}: " if finding["module"] else ""
    yield Text.assemble((f"  {finding['kind']:10} ", colour), part, (finding["where"], "dim"))
    yield Text(f"             remedy: {finding['remedy']}", style="dim")


def _figure(a: Accuracy | None) -> dict[str, Any] | None:
    return None if a is None else asdict(a)
