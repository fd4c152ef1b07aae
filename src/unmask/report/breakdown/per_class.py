"""Accuracies of each class, without an attack and in the worst case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unmask.kinds import MAIN_ROLES
from unmask.report.run_folder import CaseInfo, ExampleRecord, RunFolder, by_attack
from unmask.report.verdict.worst_case import accuracy_of, worst, worst_case
from unmask.statistics import Accuracy

__all__ = ["ClassAccuracies", "PerClass", "per_class"]


@dataclass(frozen=True)
class ClassAccuracies:
    """Of the examples of one true class."""

    name: str
    clean: Accuracy | None
    robust: Accuracy | None

    @property
    def n(self) -> int:
        """The number of examples."""
        return max(a.n if a else 0 for a in (self.clean, self.robust))


@dataclass(frozen=True)
class PerClass:
    """The classes in their order; of too many those with most examples."""

    classes: tuple[ClassAccuracies, ...]
    omitted: int  # classes that are not among them


def per_class(run: RunFolder, case: CaseInfo, max_classes: int = 20) -> PerClass | None:
    """None where no example is attacked, or the examples are all of one class."""
    clean, plain, adaptive = (by_attack(run.of(case, role)) for role in MAIN_ROLES)
    before, after = worst(clean.values()), worst_case(plain, adaptive)
    labels = sorted({found.example.label for found in (*before.values(), *after.values())})
    if not after or len(labels) < 2:
        return None
    anytime = run.rule is not None
    numbered = [
        (label, ClassAccuracies(case.name_of(label), _of(before, label, anytime), _of(after, label, anytime)))
        for label in labels
    ]
    kept = sorted(sorted(numbered, key=lambda one: -one[1].n)[:max_classes], key=lambda one: one[0])
    return PerClass(tuple(one for _, one in kept), len(labels) - len(kept))


def _of(found: Mapping[int, ExampleRecord], label: int, anytime: bool) -> Accuracy | None:
    return accuracy_of({i: one for i, one in found.items() if one.example.label == label}, anytime=anytime)
