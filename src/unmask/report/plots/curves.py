"""Accuracy against the size of the ball, and against what is varied of the defense."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from unmask.report.formatting import NORMS, eps
from unmask.report.plots.svg import ADAPTIVE, CLEAN, LINE, PLAIN, QUIET, plot, size_ticks
from unmask.report.table import Row
from unmask.statistics import Accuracy

__all__ = ["eps_curve", "strength_curve"]


def eps_curve(row: Row) -> str:
    """An ``<svg>`` element with both curves and their 95 % bands; nothing where no sweep ran."""

    def draw(axes: Axes) -> None:
        axes.axvline(row.threat.eps, color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for name, colour, marker in (("plain", PLAIN, "o"), ("adaptive", ADAPTIVE, "s")):
            points = [(point.eps, a) for point in row.eps_curve if (a := getattr(point, name))]
            _line(axes, points, name, colour, marker)
        size_ticks(axes, [point.eps for point in row.eps_curve], lambda size: eps(size, row.threat.unit))
        norm = NORMS.get(row.threat.norm, row.threat.norm)
        axes.set_xlabel(f"eps ({norm}, {row.threat.unit})", color=QUIET, parse_math=False)

    return plot(row.case, draw) if row.eps_curve else ""


def strength_curve(row: Row) -> str:
    """An ``<svg>`` element: clean, plain and adaptive accuracy against the defense's strength, with 95 % bands."""

    def draw(axes: Axes) -> None:
        if row.own is not None:
            axes.axvline(row.own, color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        for name, colour, marker in (("clean", CLEAN, "^"), ("plain", PLAIN, "o"), ("adaptive", ADAPTIVE, "s")):
            points = [(setting.value, a) for setting in row.strength_curve if (a := getattr(setting, name))]
            _line(axes, points, name, colour, marker)
        axes.set_xlabel(row.varied, color=QUIET, parse_math=False)

    return plot(f"{row.case}, varied", draw, columns=3) if row.strength_curve else ""


def _line(axes: Axes, points: Sequence[tuple[float, Accuracy]], name: str, colour: str, marker: str) -> None:
    at, shares = [place for place, _ in points], [a.value for _, a in points]
    low, high = [a.low for _, a in points], [a.high for _, a in points]
    axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(at, shares, color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=name)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
