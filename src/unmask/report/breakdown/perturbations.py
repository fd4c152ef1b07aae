"""The smallest perturbation of each example that any attack of a run found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unmask.kinds import Role
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack
from unmask.report.verdict.worst_case import worst

__all__ = ["Perturbations", "perturbations"]

_WRONG = 0.5
"""A candidate is adversarial if the model is right in less than this share of the draws."""


@dataclass(frozen=True)
class Perturbations:
    """Distances in the threat's unit, of the examples that are correct without an attack.

    Each is an upper bound of the smallest distance: an attack that uses its whole ball finds no smaller one.

    Args:
        distances: of the nearest adversarial candidate of each example that has one.
        unbroken: examples without one.
        sizes: of the balls in which these examples were attacked.
        attacks: that were run in them.
    """

    distances: tuple[float, ...]
    unbroken: int
    sizes: tuple[float, ...]
    attacks: tuple[str, ...]

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.distances) + self.unbroken


def perturbations(run: RunFolder, case: CaseInfo) -> Perturbations | None:
    """From the attacks, the curve over eps and the controls, where these have the norm and the unit of the threat.

    If some examples were attacked in balls of more sizes than others, these alone count. None if no attack broke any.
    """
    norm, unit = case.threat.norm, case.threat.unit
    records = [
        record
        for record in run.of(case, Role.PLAIN, Role.ADAPTIVE, Role.EPS, Role.CONTROL)
        if (record.job.threat.norm, record.job.threat.unit) == (norm, unit) and record.job.threat.eps > 0
    ]
    clean = worst(by_attack(run.of(case, Role.CLEAN)).values())
    attacked: dict[int, set[float]] = {}
    nearest: dict[int, float] = {}
    for record in records:
        for example in record.examples:
            attacked.setdefault(example.index, set()).add(record.job.threat.eps)
            if example.feasible and example.robust < _WRONG and math.isfinite(example.distance):
                nearest[example.index] = min(example.distance, nearest.get(example.index, example.distance))
    most = max(map(len, attacked.values()), default=0)
    chosen = [
        i for i, sizes in attacked.items() if len(sizes) == most and i in clean and clean[i].example.robust >= _WRONG
    ]
    distances = tuple(nearest[i] for i in sorted(chosen) if i in nearest)
    if not distances:
        return None
    sizes = sorted({size for i in chosen for size in attacked[i]})
    attacks = dict.fromkeys(record.job.attack for record in records)
    return Perturbations(distances, len(chosen) - len(distances), tuple(sizes), tuple(attacks))
