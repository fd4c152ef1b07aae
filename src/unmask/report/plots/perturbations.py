"""A histogram of the smallest perturbations that were found."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unmask.records import ThreatSpec
from unmask.report.breakdown.perturbations import Perturbations
from unmask.report.formatting import NORMS, eps
from unmask.report.plots.svg import ADAPTIVE, LINE, QUIET, plot, size_ticks

__all__ = ["perturbation_histogram"]

_BINS = 24


def perturbation_histogram(name: str, threat: ThreatSpec, found: Perturbations) -> str:
    """An ``<svg>`` element; the dashed line is at the size of the threat's ball."""
    edges = np.linspace(0, max(*found.distances, *found.sizes) * (1 + 1e-6), _BINS + 1)

    def draw(axes: Axes) -> None:
        axes.axvline(threat.eps, color=LINE, linewidth=1, linestyle=(0, (4, 3)))
        label = f"nearest adversarial example found, of {len(found.distances)} of {found.n} examples"
        axes.hist(found.distances, edges.tolist(), color=ADAPTIVE, alpha=0.75, label=label)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        size_ticks(axes, (0.0, *found.sizes), lambda size: eps(size, threat.unit))
        norm = NORMS.get(threat.norm, threat.norm)
        axes.set_xlabel(f"distance ({norm}, {threat.unit})", color=QUIET, parse_math=False)

    return plot(f"{name} perturbations", draw)
