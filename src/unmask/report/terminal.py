"""The report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from unmask.report.formatting import duration, interval, passes, percent, quoted, sources, stated, threat
from unmask.report.table import Row
from unmask.report.verdict.masking import Masking
from unmask.report.verdict.sentences import caveat, consequence, headline, others
from unmask.statistics import Accuracy

__all__ = ["Summary"]

STYLES = {
    Masking.MASKED: "bold red",
    Masking.PARTLY_MASKED: "bold yellow",
    Masking.NOT_FOUND: "bold",
    Masking.INCONCLUSIVE: "bold yellow",
    Masking.INCOMPLETE: "dim",
}


@dataclass(frozen=True)
class Summary:
    """The rows of a run, to be printed by rich."""

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Warnings, a table where there is room for it, else a list, and the verdict."""
        for row in self.rows:
            if row.warnings:
                yield _warnings(row, len(self.rows) > 1)
        table = _wide(self.rows)
        needed = console.measure(table, options=options.update(width=10_000)).maximum
        yield table if needed <= options.max_width else _narrow(self.rows)
        alone = self.rows[0] if len(self.rows) == 1 else None
        yield Text(headline(self.rows), style=STYLES[alone.masking] if alone else "bold")
        if rest := consequence(alone) if alone else others(self.rows):
            yield Text(rest, style="" if alone else "dim")


def _warnings(row: Row, named: bool) -> Text:
    of = f" ({row.case})" if named else ""
    lines = "".join(f"  {text}\n" for text in row.warnings)
    return Text.assemble((f"Unreliable result{of}:\n", "bold yellow"), (lines, "yellow"), end="")


def _wide(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("case", "obfuscation, threat"):
        table.add_column(name, no_wrap=True)
    text = sources(rows)
    for name in ("n", " clean", " plain attack", " adaptive attack", *text, "passes", "attack time"):
        table.add_column(name, justify="left" if name[0] == " " else "right", no_wrap=True)
    for row in rows:
        cells = [
            _verdict(row),
            Text(f"{', '.join(row.obfuscation)}\n{threat(row.threat)}".strip()),
            Text(_n(row)),
            *(_figure(a, row) for a in (row.clean, row.plain, row.adaptive)),
            *(Text(quoted(getattr(row, name))) for name in text),
            Text(passes(row), style="dim"),
            Text(duration(row.seconds), style="dim"),
        ]
        table.add_row(*cells)
    return table


def _verdict(row: Row) -> Text:
    """The case, whether its gradient is masked, and what has to be said of its figure, a line each."""
    text = caveat(row)
    return Text.assemble(
        (row.case, "bold"), ("\n" + row.masking, STYLES[row.masking]), ("\n" + text if text else "", "yellow")
    )


def _narrow(rows: Sequence[Row]) -> Text:
    text = Text()
    for row in rows:
        text.append(f"{row.case}\n", style="bold")
        text.append(
            f"{', '.join([*row.obfuscation, threat(row.threat)])}, n {_n(row)}, "
            f"{passes(row)} passes, {duration(row.seconds)} of attacks\n",
            style="dim",
        )
        masked = ", ".join(filter(None, (row.masking, caveat(row))))
        text.append_text(Text.assemble("  masking    ", (masked, STYLES[row.masking]), "\n"))
        for name in ("clean", "plain", "adaptive"):
            text.append_text(Text.assemble(f"  {name:10}", _figure(getattr(row, name), row), "\n"))
        figures = [f"{name} {quoted(figure)}" for name, figure in stated(row).items()]
        text.append(f"  {', '.join(figures)}\n\n" if figures else "\n", style="dim")
    return text


def _figure(a: Accuracy | None, row: Row) -> Text:
    if a is None:
        return Text(f"{percent(None):>7}", style="dim")
    style = STYLES[row.masking] if a is row.adaptive else ""
    return Text.assemble((f"{percent(a.value):>7}", style), (f" {interval(a):12}", "dim"))


def _n(row: Row) -> str:
    known = row.adaptive or row.plain or row.clean
    return str(known.n if known else 0)
