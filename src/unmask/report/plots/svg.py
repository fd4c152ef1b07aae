"""Plots as SVG that takes its colours from the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import StringIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["ADAPTIVE", "CLEAN", "LINE", "PLAIN", "QUIET", "plot", "plots", "size_ticks"]

# matplotlib wants colours, the page has variables for light and dark: these stand for them until the end.
COLOURS = {
    "#010101": "var(--quiet)",
    "#020202": "var(--plain)",
    "#030303": "var(--adaptive)",
    "#040404": "var(--line)",
    "#050505": "var(--clean)",
}
QUIET, PLAIN, ADAPTIVE, LINE, CLEAN = COLOURS


def plot(name: str, draw: Callable[[Axes], None], columns: int = 2) -> str:
    """What ``draw`` draws, in the style of the page: an ``<svg>`` element, the same for the same name and numbers.

    ``columns`` are those of the legend.
    """
    return plots(name, [[draw]], columns)


def plots(name: str, rows: Sequence[Sequence[Callable[[Axes], None]]], columns: int = 2) -> str:
    """Several such plots as one ``<svg>`` element, in rows of the same length."""
    wide, high = (4.8, 2.7) if len(rows[0]) == 1 else (7.6, 2.5)
    with matplotlib.rc_context():
        matplotlib.rc("svg", fonttype="none", hashsalt=name)
        matplotlib.rc("font", size=9, family="sans-serif")
        figure = Figure(figsize=(wide, high * len(rows)), layout="constrained")
        for line, draws in zip(figure.subplots(len(rows), len(rows[0]), squeeze=False), rows, strict=True):
            for axes, draw in zip(line, draws, strict=True):
                draw(axes)
                _style(axes, columns)
        return _inline(figure)


def size_ticks(axes: Axes, sizes: Sequence[float], text: Callable[[float], str]) -> None:
    """Ticks at the sizes of balls, as ``text`` writes them; of sizes that are too close to read, one."""
    shown: list[float] = []
    for size in sorted(sizes):
        if not shown or size - shown[-1] >= max(sizes) / 8:
            shown.append(size)
    axes.set_xticks(shown, [text(size) for size in shown])


def _style(axes: Axes, columns: int) -> None:
    axes.tick_params(color=LINE, labelcolor=QUIET)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=LINE)
    axes.legend(frameon=False, labelcolor=QUIET, ncols=columns, loc="lower left", bbox_to_anchor=(-0.02, 1.0))


def _inline(figure: Figure) -> str:
    out = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])  # the same in each plot, and used by nothing
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # hundredths of a point
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
