"""What clean and adversarial images measure, for a defense that judges how natural images are."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from unmask.kinds import Role
from unmask.report.plots.stored_tensors import StoredTensors
from unmask.report.plots.svg import ADAPTIVE, CLEAN, QUIET, plot
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack
from unmask.report.verdict.worst_case import worst

__all__ = ["histogram"]

BINS = 24


def histogram(run: RunFolder, case: CaseInfo) -> str:
    """An ``<svg>`` element; nothing where no images were measured.

    Raises UnmaskError where a file of examples is broken.
    """
    if not case.measured:
        return ""
    kept = StoredTensors(run)
    values = {
        role: [
            float(value)
            for found in worst(by_attack(run.of(case, role)).values()).values()
            if (value := kept.of(found, "measured")) is not None
        ]
        for role in (Role.CLEAN, Role.ADAPTIVE)
    }
    if not all(values.values()):
        return ""
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), BINS)

    def draw(axes: Axes) -> None:
        for role, colour in ((Role.CLEAN, CLEAN), (Role.ADAPTIVE, ADAPTIVE)):
            name = "adversarial" if role == Role.ADAPTIVE else role
            label = f"{name}, n = {len(values[role])}"
            axes.hist(values[role], edges.tolist(), color=colour, alpha=0.45, histtype="stepfilled", label=label)
        axes.set_xlabel(case.measured, color=QUIET, parse_math=False)

    return plot(f"{case.case} measured", draw)
