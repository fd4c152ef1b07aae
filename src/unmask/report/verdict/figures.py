"""The accuracies of one case, the paired test between them, and whether all verdicts are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unmask.kinds import MAIN_ROLES, Role
from unmask.report.run_folder import CaseInfo, ExampleRecord, RunFolder, by_attack
from unmask.report.verdict.worst_case import accuracy_of, adaptive_accuracy, known_accuracy, named, paired, worst
from unmask.statistics import Accuracy, PairedTest

__all__ = ["Figures", "figures"]

Verdicts = Mapping[str, dict[int, ExampleRecord]]
"""Name of an attack -> example's index -> verdict."""


@dataclass(frozen=True)
class Figures:
    """What the records of a case say; accuracies are None where nothing is known yet.

    Args:
        attacks: by role: clean, plain or adaptive.
        paired_test: from the plain attacks to the adaptive ones alone.
        complete: whether the clean verdicts and those of every attack of run.json are all there.
    """

    attacks: Mapping[Role, Verdicts]
    clean: Accuracy | None
    plain: Accuracy | None
    adaptive: Accuracy | None
    paired_test: PairedTest | None
    controls: Mapping[str, Accuracy]
    complete: bool

    @property
    def robust(self) -> Accuracy | None:
        """The worst case over all attacks."""
        return self.adaptive or self.plain


def figures(run: RunFolder, case: CaseInfo) -> Figures:
    """The figures of a case of a run."""
    anytime = run.rule is not None
    attacks = {role: by_attack(run.of(case, role)) for role in MAIN_ROLES}
    clean, plain, adaptive = (worst(attacks[role].values()) for role in MAIN_ROLES)
    controls = by_attack(run.of(case, Role.CONTROL))
    plain_left = accuracy_of(plain, named(attacks[Role.PLAIN]), anytime=anytime)
    adaptive_left = adaptive_accuracy(attacks[Role.PLAIN], attacks[Role.ADAPTIVE], anytime=anytime)
    return Figures(
        attacks=attacks,
        clean=accuracy_of(clean, anytime=anytime),
        plain=plain_left,
        adaptive=adaptive_left,
        paired_test=paired(plain, adaptive, anytime=anytime),
        controls={name: known_accuracy(found, name, anytime=anytime) for name, found in controls.items()},
        complete=_complete(run, case, attacks, adaptive_left or plain_left),
    )


def _complete(run: RunFolder, case: CaseInfo, attacks: Mapping[Role, Verdicts], robust: Accuracy | None) -> bool:
    clean = len(worst(attacks[Role.CLEAN].values()))
    attacked = {**attacks[Role.PLAIN], **attacks[Role.ADAPTIVE]}
    enough = max(case.n or clean, 1)
    if run.rule is not None and robust is not None and run.rule.met(robust):
        enough = clean
    return min([clean, *(len(attacked.get(name, {})) for name in case.attacks)]) >= enough
