"""Accuracy against the size of the ball, as SVG that takes its colours from the page."""

from __future__ import annotations

from io import StringIO

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from unmask.report.table import Row
from unmask.report.words import NORMS

__all__ = ["curve"]

# matplotlib wants colours, the page has variables for light and dark: these stand for them until the end.
COLOURS = {"#010101": "var(--quiet)", "#020202": "var(--plain)", "#030303": "var(--adaptive)", "#040404": "var(--line)"}
QUIET, PLAIN, ADAPTIVE, LINE = COLOURS


def curve(row: Row) -> str:
    """An ``<svg>`` element with both curves and their 95 % bands; nothing where no sweep ran."""
    if not row.curve:
        return ""
    with matplotlib.rc_context():
        matplotlib.rc("svg", fonttype="none", hashsalt=row.case)
        matplotlib.rc("font", size=9, family="sans-serif")
        figure = Figure(figsize=(4.8, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.axvline(row.threat.eps, color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for name, colour, marker in (("plain", PLAIN, "o"), ("adaptive", ADAPTIVE, "s")):
            points = [(point.eps, a) for point in row.curve if (a := getattr(point, name))]
            eps, shares = [e for e, _ in points], [a.value for _, a in points]
            low, high = [a.low for _, a in points], [a.high for _, a in points]
            axes.fill_between(eps, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(eps, shares, color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=name)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        norm = NORMS.get(row.threat.norm, row.threat.norm)
        axes.set_xlabel(f"eps ({norm}, {row.threat.unit})", color=QUIET, parse_math=False)
        axes.tick_params(color=LINE, labelcolor=QUIET)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set(visible=side == "bottom", color=LINE)
        axes.legend(frameon=False, labelcolor=QUIET, ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        return _inline(figure)


def _inline(figure: Figure) -> str:
    out = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
