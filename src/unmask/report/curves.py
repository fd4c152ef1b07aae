"""Accuracy against the size of the ball."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from unmask.report.svg import ADAPTIVE, LINE, PLAIN, QUIET, plot
from unmask.report.table import Row
from unmask.report.words import NORMS

__all__ = ["curve"]


def curve(row: Row) -> str:
    """An ``<svg>`` element with both curves and their 95 % bands; nothing where no sweep ran."""

    def draw(axes: Axes) -> None:
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

    return plot(row.case, draw) if row.curve else ""
