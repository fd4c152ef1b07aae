"""The report as one HTML file that asks for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unmask.report import words
from unmask.report.audit import Examination
from unmask.report.conclusion import LEVEL, MARGIN
from unmask.report.curves import curve, trade
from unmask.report.film import Film, film
from unmask.report.histograms import histogram
from unmask.report.losses import losses
from unmask.report.pictures import strip
from unmask.report.read import Case, RunFolder
from unmask.report.table import Row
from unmask.report.ways import by_strength, ways

__all__ = ["html"]


def html(run: RunFolder, rows: Sequence[Row]) -> str:
    """The text of report.html; every name in it is escaped."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update({name: getattr(words, name) for name in words.__all__})
    cards = [
        (
            row,
            Markup(curve(row)),
            Markup(trade(row)),
            Markup(histogram(run, case)),
            strip(run, case),
            Examination.of(run, case, row),
            *_way(run, case),
        )
        for row, case in zip(rows, run.cases, strict=True)
    ]
    return pages.get_template("page.html").render(asked=run.asked, rows=rows, cards=cards, level=LEVEL, margin=MARGIN)


def _way(run: RunFolder, case: Case) -> tuple[Markup, Film | None]:
    """The loss along plain and adaptive attacks, and the film of the example that took an adaptive one longest."""
    plain, adaptive = ways(run, case, "plain"), ways(run, case, "adaptive")
    tried = [way for found in by_strength(run, case, "adaptive") for way in found]
    return Markup(losses(case.case, [*plain, *adaptive])), film(case, tried or plain)
