"""The loss along the trajectories of attacks, on the model and through the attack's view."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from unmask.report.plots.svg import ADAPTIVE, LINE, PLAIN, QUIET, plot
from unmask.report.plots.trajectories import Trajectory

__all__ = ["losses"]

_COLOURS = {"plain": PLAIN, "adaptive": ADAPTIVE}


def losses(name: str, ways: Sequence[Trajectory]) -> str:
    """An ``<svg>`` element, drawn solid for the model and dotted for the view; nothing where there are no ways."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=QUIET, linewidth=1)
        named: set[str] = set()
        for way in ways:
            colour = _COLOURS[way.role]
            for values, style, of in ((way.true, "-", "the model"), (way.view, ":", "its view")):
                label = f"{way.role}: {of}"
                axes.plot(
                    way.step,
                    values.astype(float),
                    color=colour,
                    linestyle=style,
                    linewidth=1.4,
                    alpha=0.85,
                    label=label if label not in named else "_",
                )
                named.add(label)
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("candidates tried", color=QUIET)
        axes.set_ylabel("max over j ≠ y of z_j - z_y", color=QUIET, parse_math=False)
        axes.grid(axis="x", color=LINE, linewidth=0.6)

    return plot(f"{name} ways", draw) if ways else ""
