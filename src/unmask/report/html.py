"""The report as one HTML file that needs no other file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from unmask.kinds import Role
from unmask.report import formatting
from unmask.report.audit import AuditSection
from unmask.report.breakdown.confusion import Confusion, confusion
from unmask.report.breakdown.per_class import PerClass, per_class
from unmask.report.breakdown.perturbations import Perturbations, perturbations
from unmask.report.plots.animation import Animation, animation
from unmask.report.plots.curves import eps_curve, strength_curve
from unmask.report.plots.histograms import histogram
from unmask.report.plots.landscape import Landscape, landscape
from unmask.report.plots.losses import losses
from unmask.report.plots.perturbations import perturbation_histogram
from unmask.report.plots.pictures import Gallery, gallery
from unmask.report.plots.trajectories import by_strength, trajectories
from unmask.report.run_folder import CaseInfo, RunFolder
from unmask.report.table import Row
from unmask.report.verdict import finding_sentences, sentences
from unmask.report.verdict.controls import Control, controls
from unmask.report.verdict.thresholds import LEVEL, MARGIN

__all__ = ["html"]


@dataclass(frozen=True)
class Card:
    """What the page shows of one case; plots are ``<svg>`` elements, empty where there is nothing to draw."""

    row: Row
    eps_curve: Markup
    strength_curve: Markup
    naturalness: Markup  # what the defense measures of clean and adversarial images
    perturbations: Perturbations | None
    perturbation_plot: Markup
    losses: Markup
    animation: Animation | None
    gallery: Gallery | None
    audit: AuditSection | None
    landscape: Landscape | None
    setup: Sequence[Mapping[str, Any]]
    controls: tuple[Control, ...]
    per_class: PerClass | None
    confusion: Confusion | None


def html(run: RunFolder, rows: Sequence[Row]) -> str:
    """The text of report.html; every name in it is escaped."""
    page = _pages().get_template("page.html")
    return page.render(
        asked=run.config,
        rows=rows,
        cards=[_card(run, case, row) for row, case in zip(rows, run.cases, strict=True)],
        level=LEVEL,
        margin=MARGIN,
        meaning=sentences.MEANING,
    )


@cache
def _pages() -> Environment:
    """The templates, which are compiled once in a process."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for texts in (formatting, sentences, finding_sentences):
        pages.filters.update({name: getattr(texts, name) for name in texts.__all__ if name.islower()})
    pages.filters["breakable"] = _breakable
    return pages


def _card(run: RunFolder, case: CaseInfo, row: Row) -> Card:
    plain, adaptive = trajectories(run, case, Role.PLAIN), trajectories(run, case, Role.ADAPTIVE)
    adaptive_all = [one for found in by_strength(run, case, Role.ADAPTIVE) for one in found]
    nearest = perturbations(run, case)
    return Card(
        row=row,
        eps_curve=Markup(eps_curve(row)),
        strength_curve=Markup(strength_curve(row)),
        naturalness=Markup(histogram(run, case)),
        perturbations=nearest,
        perturbation_plot=Markup(perturbation_histogram(case.case, case.threat, nearest) if nearest else ""),
        losses=Markup(losses(case.case, [*plain, *adaptive])),
        animation=animation(case, adaptive_all or plain),  # of the example that took an adaptive attack longest
        gallery=gallery(run, case),
        audit=AuditSection.of(run, case, row),
        landscape=landscape(run, case) if case.audit is not None else None,
        setup=case.setup_findings,
        controls=controls(run, case),
        per_class=per_class(run, case),
        confusion=confusion(run, case),
    )


def _breakable(name: str) -> Markup:
    """A text with names that a browser may break after a separator, and no break before a percent sign."""
    parts = re.split(r"(?<=[/\\:_.,-])(?=[^\s\d])", str(name).replace(" %", "\N{NO-BREAK SPACE}%"))
    return Markup("<wbr>").join(escape(part) for part in parts if part)
