"""The report as one HTML file that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unmask.kinds import Role
from unmask.report import formatting
from unmask.report.audit import AuditSection
from unmask.report.plots.animation import Animation, animation
from unmask.report.plots.curves import eps_curve, strength_curve
from unmask.report.plots.histograms import histogram
from unmask.report.plots.losses import losses
from unmask.report.plots.pictures import strip
from unmask.report.plots.trajectories import by_strength, trajectories
from unmask.report.run_folder import CaseInfo, RunFolder
from unmask.report.table import Row
from unmask.report.verdict import sentences
from unmask.report.verdict.thresholds import LEVEL, MARGIN

__all__ = ["html"]


def html(run: RunFolder, rows: Sequence[Row]) -> str:
    """The text of report.html; every name in it is escaped."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for texts in (formatting, sentences):
        pages.filters.update({name: getattr(texts, name) for name in texts.__all__ if name.islower()})
    cards = [
        (
            row,
            Markup(eps_curve(row)),
            Markup(strength_curve(row)),
            Markup(histogram(run, case)),
            strip(run, case),
            AuditSection.of(run, case, row),
            case.setup_findings,
            *_trajectory_plots(run, case),
        )
        for row, case in zip(rows, run.cases, strict=True)
    ]
    return pages.get_template("page.html").render(
        asked=run.config, rows=rows, cards=cards, level=LEVEL, margin=MARGIN, meaning=sentences.MEANING
    )


def _trajectory_plots(run: RunFolder, case: CaseInfo) -> tuple[Markup, Animation | None]:
    """The loss along plain and adaptive attacks, and the animation of the example that took an adaptive one longest."""
    plain, adaptive = trajectories(run, case, Role.PLAIN), trajectories(run, case, Role.ADAPTIVE)
    adaptive_all = [one for found in by_strength(run, case, Role.ADAPTIVE) for one in found]
    return Markup(losses(case.case, [*plain, *adaptive])), animation(case, adaptive_all or plain)
