"""An attack through a view of its own, for ensembles whose members use different views."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from unmask.attacks.problem import Attack, Problem
from unmask.gradients.bpda import View
from unmask.models.graph_memory import out_of_memory
from unmask.types import InvalidModelOutput

__all__ = ["WithView"]


@dataclass(frozen=True)
class WithView:
    """``attack`` with gradients through ``view`` instead of the view that the problem came with.

    Args:
        view: such as ``bpda("encode")``.
        attack: the search.
        name: with it, an error in code of the view or of the model ends only this attack: ``problem.on_failure`` is
            called, and what the attack has broken until then is returned. Without it, or if the problem has no
            ``on_failure``, the error is raised, and so are a lack of memory and answers that cannot be judged.

    Raises UnmaskError where the problem offers no views; those of :func:`unmask.run_attack` do.

    >>> from unmask.attacks.combined.ensemble import Ensemble
    >>> from unmask.attacks.aliases import pgd
    >>> from unmask.gradients.straight_through import straight_through
    >>> worst = Ensemble((pgd(), WithView(straight_through, pgd())))
    """

    view: View
    attack: Attack
    name: str = field(default="", compare=False)

    def __call__(self, problem: Problem) -> Tensor:
        if not self.name or problem.on_failure is None:
            return self.attack(problem.through(self.view))
        found = problem.x.clone()

        def broken(rows: Tensor, x_adv: Tensor, step: int) -> Tensor:
            verdict = problem.is_broken(rows, x_adv, step)
            found[rows[verdict]] = x_adv[verdict].detach()
            return verdict

        try:
            return self.attack(replace(problem.through(self.view), is_broken=broken))
        except Exception as error:  # of the author's code, in a use that it was not written for
            if isinstance(error, InvalidModelOutput) or out_of_memory(error):
                raise
            problem.on_failure(self.name, error)
            return found
