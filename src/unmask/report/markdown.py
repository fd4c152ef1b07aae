"""The report as Markdown, for a pull request or a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from unmask.records import Figure
from unmask.report.formatting import (
    any_replicated,
    at,
    category,
    count,
    duration,
    examples,
    interval,
    passes,
    percent,
    quoted,
    stated,
    threat,
)
from unmask.report.run_folder import RunFolder
from unmask.report.table import AttackRow, Row, StrengthPoint
from unmask.report.verdict.sentences import caveat, headline, others, sentence
from unmask.statistics import FIXED, Accuracy

__all__ = ["markdown"]


def markdown(run: RunFolder, rows: Sequence[Row]) -> str:
    """The text of report.md."""
    earlier = any_replicated(rows)
    columns = [
        "case",
        "obfuscation",
        "data",
        "threat",
        "n",
        "clean",
        "plain",
        "adaptive",
        "claimed",
        "published",
        *(["replicated"] if earlier else []),
        "gradient masking",
        "passes",
        "time",
    ]
    blocks = [
        f"# {headline(rows)}",
        *(_warnings(row, len(rows) > 1) for row in rows),
        _escape(others(rows)),
        _table(columns, [_main(row, earlier) for row in rows]),
        *(block for row in rows for block in _case(row)),
        f"{examples(rows)}, seed {run.config['seed']}. In brackets: {_intervals(rows)}. "
        "Passes: images forward / backward in the attacks. "
        "Adaptive: the worst case for each example over all attacks, including the plain ones.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _warnings(row: Row, named: bool) -> str:
    """A quotation, so that it stands out; nothing where there is no warning."""
    if not row.warnings:
        return ""
    of = f" ({_escape(row.case)})" if named else ""
    return "\n".join([f"> **Unreliable result{of}:**", *(f"> - {_escape(text)}" for text in row.warnings)])


def _main(row: Row, earlier: bool) -> list[str]:
    known = row.adaptive or row.plain or row.clean
    return [
        row.case,
        ", ".join(row.obfuscation),
        _data(row),
        threat(row.threat),
        str(known.n if known else 0),
        *map(_cell, (row.clean, row.plain, row.adaptive)),
        _linked(row.claimed),
        _linked(row.published),
        *([_linked(row.replicated)] if earlier else []),
        ", ".join(filter(None, (row.masking, caveat(row)))),
        passes(row),
        duration(row.seconds),
    ]


def _case(row: Row) -> list[str]:
    access, general = any(a.access for a in row.attacks), bool(row.superclass_accuracy)
    names = [
        "attack",
        *(["access"] if access else []),
        "accuracy",
        *(["general category"] if general else []),
        *(["one draw", "all draws"] if row.random else []),
        "forward",
        "backward",
        "time",
    ]
    about = f"{row.defense}. {row.citation}" if row.citation else row.defense
    controls = ", ".join(
        f"{name}{at(row.control_threats.get(name, ()))} {_cell(a)}" for name, a in row.controls.items()
    )
    return [
        f"## {_escape(row.case)}",
        _escape(about),
        _escape(row.note),
        "\n".join(f"- {name} {quoted(figure)}: {_source(figure)}" for name, figure in stated(row).items()),
        _escape(sentence(row)),
        _escape(category(row)),
        _table(names, [_attack(a, row.random, access, general) for a in row.attacks]) if row.attacks else "",
        _escape(f"Controls: {controls}.") if controls else "",
        _table([row.varied, "clean", "plain", "adaptive"], map(_setting, row.strength_curve))
        if row.strength_curve
        else "",
    ]


def _attack(a: AttackRow, random: bool, access: bool, general: bool) -> list[str]:
    return [
        a.name + at(a.other_threats),
        *([a.access] if access else []),
        _cell(a.accuracy),
        *([_cell(a.superclass_accuracy)] if general else []),
        *([percent(a.robust_one_draw), percent(a.robust_all_draws)] if random else []),
        count(a.forwards),
        count(a.backwards),
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
