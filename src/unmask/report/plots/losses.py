"""The loss along the trajectories of attacks, on the model and through the attack's view."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from unmask.kinds import Role
from unmask.report.plots.svg import ADAPTIVE, LINE, PLAIN, QUIET, plot
from unmask.report.plots.trajectories import Trajectory

__all__ = ["losses"]

_COLOURS = {Role.PLAIN: PLAIN, Role.ADAPTIVE: ADAPTIVE}


def losses(name: str, trajectories: Sequence[Trajectory]) -> str:
    """An ``<svg>`` element: solid for the model, dotted for the view; nothing where there are no trajectories."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=QUIET, linewidth=1)
        named: set[str] = set()
        for trajectory in trajectories:
            colour = _COLOURS[trajectory.role]
            for values, style, of in ((trajectory.true, "-", "the model"), (trajectory.view, ":", "its view")):
                label = f"{trajectory.role}: {of}"
                axes.plot(
                    trajectory.step,
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

    return plot(f"{name} trajectories", draw) if trajectories else ""
