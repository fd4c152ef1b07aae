"""An attack through a view of its own, for ensembles whose members use different views."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unmask.attacks.problem import Attack, Problem
from unmask.gradients.bpda import View

__all__ = ["WithView"]


@dataclass(frozen=True)
class WithView:
    """``attack`` with gradients through ``view`` instead of the view that the problem came with.

    Raises UnmaskError where the problem offers no views; those of :func:`unmask.run_attack` do.

    >>> from unmask.attacks.combined.ensemble import Ensemble
    >>> from unmask.attacks.aliases import pgd
    >>> from unmask.gradients.straight_through import straight_through
    >>> worst = Ensemble((pgd(), WithView(straight_through, pgd())))
    """

    view: View
    attack: Attack

    def __call__(self, problem: Problem) -> Tensor:
        return self.attack(problem.through(self.view))
