"""The report as Markdown, for a pull request or a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unmask.records import Figure
from unmask.report.audit import AuditSection, heading
from unmask.report.formatting import (
    at,
    category,
    count,
    duration,
    examples,
    interval,
    passes,
    percent,
    place,
    quoted,
    short_percent,
    sources,
    stated,
    steps,
    threat,
)
from unmask.report.run_folder import CaseInfo, RunFolder
from unmask.report.table import AttackRow, Row, StrengthPoint
from unmask.report.verdict.controls import Control, controls
from unmask.report.verdict.finding_sentences import effect
from unmask.report.verdict.sentences import caveat, consequence, headline, others, sentence
from unmask.statistics import FIXED, Accuracy

__all__ = ["markdown"]


def markdown(run: RunFolder, rows: Sequence[Row]) -> str:
    """The text of report.md."""
    others_stated = sources(rows)
    obfuscated = any(row.obfuscation for row in rows)
    columns = [
        "case",
        *(["obfuscation"] if obfuscated else []),
        "data",
        "threat",
        "n",
        "clean",
        "plain",
        "adaptive",
        *others_stated,
        "gradient masking",
        "passes",
        "attack time",
    ]
    blocks = [
        f"# {_escape(headline(rows))}",
        *(_warnings(row, len(rows) > 1) for row in rows),
        _escape(consequence(rows[0]) if len(rows) == 1 else others(rows)),
        _table(columns, [_main(row, obfuscated, others_stated) for row in rows]),
        *(block for case, row in zip(run.cases, rows, strict=True) for block in _case(run, case, row)),
        f"{examples(rows)}, seed {run.config['seed']}. In brackets: {_intervals(rows)}. "
        "Passes: images forward / backward in the attacks, in total. Attack time: of all attacks, without the rest. "
        "Adaptive: the worst case for each example over all attacks, including the plain ones.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _warnings(row: Row, named: bool) -> str:
    """A quotation, so that it stands out; nothing where there is no warning."""
    if not row.warnings:
        return ""
    of = f" ({_escape(row.case)})" if named else ""
    return "\n".join([f"> **Unreliable result{of}:**", *(f"> - {_escape(text)}" for text in row.warnings)])


def _main(row: Row, obfuscated: bool, others_stated: Sequence[str]) -> list[str]:
    known = row.adaptive or row.plain or row.clean
    return [
        row.case,
        *([", ".join(row.obfuscation)] if obfuscated else []),
        _data(row),
        threat(row.threat),
        str(known.n if known else 0),
        *map(_cell, (row.clean, row.plain, row.adaptive)),
        *(_linked(stated(row).get(name)) for name in others_stated),
        ", ".join(filter(None, (row.masking, caveat(row)))),
        passes(row),
        duration(row.seconds),
    ]


def _case(run: RunFolder, case: CaseInfo, row: Row) -> list[str]:
    access, general = any(a.access for a in row.attacks), bool(row.superclass_accuracy)
    names = [
        "attack",
        *(["access"] if access else []),
        "accuracy",
        *(["general category"] if general else []),
        *(["one draw", "all draws"] if row.random else []),
        "forward per example",
        "backward per example",
        "attack time",
    ]
    about = f"{row.defense}. {row.citation}" if row.citation else row.defense
    return [
        f"## {_escape(row.case)}",
        _escape(about),
        _escape(row.note),
        "\n".join(f"- {name} {quoted(figure)}: {_source(figure)}" for name, figure in stated(row).items()),
        _escape(sentence(row)),
        _escape(category(row)),
        *_diagnosis(run, case, row),
        *_setup(case),
        _table(names, [_attack(a, row.random, access, general) for a in row.attacks]) if row.attacks else "",
        _controls(controls(run, case)),
        _table([row.varied, "clean", "plain", "adaptive"], map(_setting, row.strength_curve))
        if row.strength_curve
        else "",
    ]


def _diagnosis(run: RunFolder, case: CaseInfo, row: Row) -> list[str]:
    """What an audit found of the gradients, with the remedies and the view that the attacks take."""
    audit = AuditSection.of(run, case, row)
    if audit is None:
        return []
    view = audit.view
    return [
        f"### {_escape(heading(case, row))}",
        _escape(f"{audit.not_diagnosed_reason.capitalize()}.") if audit.not_diagnosed_reason else "",
        "\n".join(map(_finding, audit.findings)),
        _escape(
            f"The attacks take the view {view.view}: in its pilot {short_percent(view.robust_accuracy)} "
            f"of the examples stay correct."
        )
        if view
        else "",
        f"Time before the attacks: {steps(audit.planning_seconds)}." if audit.planning_seconds else "",
    ]


def _setup(case: CaseInfo) -> list[str]:
    return ["### Model setup warnings", "\n".join(map(_finding, case.setup_findings))] if case.setup_findings else []


def _finding(finding: Mapping[str, Any]) -> str:
    measured = f" {effect(finding)}" if effect(finding) else ""
    text = f"{place(finding)}.{measured} Remedy: {finding['remedy']}"
    return f"- **{_escape(finding['kind'])}** {_escape(text)}"


def _controls(found: Sequence[Control]) -> str:
    if not found:
        return ""
    results = {True: "as expected", False: "**not as expected**", None: ""}
    lines = [
        f"- {_escape(f'{one.name}{at(one.other_threats)}')} {_cell(one.accuracy)}"
        + (f": {results[one.passed]} ({_escape(one.expected)})" if one.expected else "")
        for one in found
    ]
    return "\n".join(["Controls:", "", *lines])


def _attack(a: AttackRow, random: bool, access: bool, general: bool) -> list[str]:
    return [
        a.name + at(a.other_threats),
        *([a.access] if access else []),
        _cell(a.accuracy),
        *([_cell(a.superclass_accuracy)] if general else []),
        *([percent(a.robust_one_draw), percent(a.robust_all_draws)] if random else []),
        count(a.forwards / a.accuracy.n),
        count(a.backwards / a.accuracy.n),
        duration(a.seconds),
    ]


def _setting(setting: StrengthPoint) -> list[str]:
    return [f"{setting.value:g}", *map(_cell, (setting.clean, setting.plain, setting.adaptive))]


def _linked(figure: Figure | None) -> str:
    return f"[{quoted(figure)}]({figure.url})" if figure else quoted(None)


def _source(figure: Figure) -> str:
    """Its source, and its note; a bracket in the name must not end the link."""
    name = re.sub(r"([\[\]])", r"\\\1", _escape(figure.source))
    return f"[{name}]({figure.url})" + (f"; {_escape(figure.note)}" if figure.note else "")


def _data(row: Row) -> str:
    return row.data_note or row.data


def _cell(a: Accuracy | None) -> str:
    return f"{percent(a.value)} {interval(a)}" if a else "—"


def _table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [names, ["---"] * len(names), *([_escape(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _escape(text: str) -> str:
    """Names come from other people's files: nothing in them may act as markup or end a cell."""
    return re.sub(r"([\\`*_<>|#])", r"\\\1", " ".join(text.split()))


def _intervals(rows: Sequence[Row]) -> str:
    kind = rows[0].intervals if rows else FIXED
    return f"{kind}; the run continued until {rows[0].stop_when}" if rows and rows[0].stop_when else kind
